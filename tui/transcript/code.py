"""Code: highlighted while it grows, drawn line by line as it comes into view."""

from __future__ import annotations

from functools import lru_cache

from textual.strip import Strip
from textual.style import Style

from edgespec.tui.transcript.look import Frame, Line, Look, filled
from edgespec.tui.transcript.wrapping import TAB, fold, num_folded

PADDING = 2
"""Columns before and after code, on its ground."""

Named = list[tuple[str, str]]
"""A line in pieces, each with the name of its style."""


class Code:
    """A block of code whose end may not have come.

    Highlighting needs all of a text. While lines come it is done whenever there is a quarter more
    of them; the lines since then are highlighted alone, or as the string or comment they stand in.
    """

    def __init__(self, info: str = "") -> None:
        self.info = info
        self.lines: list[str] = []
        self.partial: str | None = None
        self.is_ended = False
        self._named: list[Named] = []
        self._within = ""
        self._due = 1
        self._is_whole = False

    def add(self, line: str) -> None:
        """Add a line that is whole."""
        self.lines.append(line.expandtabs(TAB))
        self.is_ended = self._is_whole = False

    def end(self) -> None:
        """Say that no more comes."""
        self.is_ended = True

    def texts(self) -> list[str]:
        """All lines, the one that is not whole included."""
        return self.lines if self.partial is None else [*self.lines, self.partial.expandtabs(TAB)]

    def named(self) -> list[Named]:
        """All lines in pieces."""
        texts = self.texts()
        if self.is_ended and not self._is_whole:
            self._named, self._within = _highlighted("\n".join(texts), self.info)
            self._is_whole = True
        elif not self.is_ended and len(self.lines) >= self._due:
            self._named, self._within = _highlighted("\n".join(self.lines), self.info)
            self._due = len(self.lines) + len(self.lines) // 4 + 8
        rest = texts[len(self._named) :]
        if not rest:
            return self._named[: len(texts)]
        if self._within:
            return self._named + [[(text, self._within)] for text in rest]
        return self._named + _highlighted("\n".join(rest), self.info)[0]


def _highlighted(text: str, info: str) -> tuple[list[Named], str]:
    """Each line of `text`, and the style of a string or comment that goes on after it."""
    if not text:
        return [[]], ""
    language = (info.split() or ["text"])[0].strip("{}.").lower() or "text"
    # Textual's highlighter joins what `splitlines` finds.
    flat = "\n".join(" ".join(line.splitlines()) for line in text.split("\n"))
    from textual.highlight import highlight  # loads Pygments: not for the first frame

    content = highlight(flat + "\n", language=language)
    lines: list[Named] = [[]]
    place, after = 0, ""
    for start, end, style in content.spans[1:]:
        _put(lines, flat[place:start], "")
        _put(lines, flat[start:end], str(style))
        place = max(place, min(end, len(flat)))
        after = str(style) if end > len(flat) else ""
    _put(lines, flat[place:], "")
    return lines, after


def _put(lines: list[Named], text: str, style: str) -> None:
    first, *others = text.split("\n")
    if first:
        lines[-1].append((first, style))
    lines += [[(other, style)] if other else [] for other in others]


@lru_cache(maxsize=64)
def whole_code(text: str, info: str) -> Code:
    """Code that is complete, as it stands in a list or a quote."""
    code = Code(info)
    for line in text.rstrip("\n").split("\n"):
        code.add(line)
    code.end()
    return code


class CodeLines:
    """The rows of a block of code at one width: its info, its lines, an empty row."""

    def __init__(self, code: Code, width: int, look: Look, ground: Style) -> None:
        self._look = look
        self._style = ground + look["fence"]
        self._info = code.info
        self._width = width
        self._inner = max(4, width - 2 * PADDING)
        self._named = code.named()
        self._places = [
            (index, row)
            for index, text in enumerate(code.texts())
            for row in range(num_folded(text, self._inner))
        ]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._places) + 2

    def __getitem__(self, index: int, /) -> Line:
        """The row with that number."""
        line: Line = []
        if index == 0:
            line = [(self._info, self._style + self._look["muted"])]
        elif index <= len(self._places):
            place, row = self._places[index - 1]
            named = self._named[place]
            styled = [(text, self._style + self._look.of_code(name)) for text, name in named]
            line = fold(styled, self._inner)[row]
        return filled([(" " * PADDING, self._style), *line], self._width, self._style)


class CodeRows:
    """The rows of code as strips, made when they are asked for; implements `Rows`."""

    def __init__(self, code: Code, frame: Frame, gap: int) -> None:
        self._lines = CodeLines(code, frame.width, frame.look, frame.look.base)
        self._frame = frame
        self._gap = gap
        self._made: dict[int, Strip] = {}

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._lines) + self._gap

    def __getitem__(self, index: int, /) -> Strip:
        """The row with that number."""
        if index not in self._made:
            line = [] if index < self._gap else self._lines[index - self._gap]
            self._made[index] = self._frame.row(line)
        return self._made[index]
