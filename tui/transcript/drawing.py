"""Tokens of Markdown become rows of styled text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from textual.style import Style

from edgespec.tui.transcript.code import CodeLines, whole_code
from edgespec.tui.transcript.inline import runs_of
from edgespec.tui.transcript.look import Line, Look
from edgespec.tui.transcript.markdown import groups
from edgespec.tui.transcript.tables import draw_table
from edgespec.tui.transcript.wrapping import wrap

if TYPE_CHECKING:
    from markdown_it.token import Token

BULLETS = ("• ", "▪ ", "‣ ", "◦ ")

MIN_WIDTH = 12
"""Columns that text keeps, however deep lists and quotes are nested."""

_SPACED = ("fence", "code_block", "table_open", "blockquote_open", "heading_open")


def marker(number: int | None, depth: int = 0) -> str:
    """What stands before an item: its number, or the bullet of its depth if it has none.

    >>> marker(3), marker(12), marker(None, 1)
    (' 3. ', '12. ', '▪ ')
    """
    return BULLETS[depth % len(BULLETS)] if number is None else f"{number:2}. "


class Drawer:
    """Draws blocks of one text; `source` are the lines that the tokens' maps count."""

    def __init__(self, source: Sequence[str], look: Look) -> None:
        self._source = source
        self._look = look

    def draw(
        self, tokens: Sequence[Token], width: int, ground: Style, depth: int = 0, level: int = 0
    ) -> list[Line]:
        """All blocks at `level`, one below the other, in rows of `width` columns."""
        lines: list[Line] = []
        before = ""
        for group in groups(tokens, level):
            kind = group[0].type
            if lines and (before in _SPACED or kind in _SPACED or before == kind):
                lines.append([])
            lines += self._block(group, width, ground, depth)
            before = kind
        return lines

    def item(
        self, tokens: Sequence[Token], mark: str, width: int, ground: Style, depth: int = 0
    ) -> list[Line]:
        """An item of a list, after its mark; `tokens` with those that open and close it."""
        inner = max(MIN_WIDTH, width - len(mark))
        level = tokens[0].level + 1
        lines = self.draw(tokens[1:-1], inner, ground, depth + 1, level) or [[]]
        first: Line = [(mark, ground + self._look["bullet"])]
        space: Line = [(" " * len(mark), ground)]
        return [[*(space if index else first), *line] for index, line in enumerate(lines)]

    def _block(self, group: Sequence[Token], width: int, ground: Style, depth: int) -> list[Line]:
        token, look = group[0], self._look
        if token.type in ("fence", "code_block"):
            code = CodeLines(whole_code(token.content, token.info.strip()), width, look, ground)
            return [code[index] for index in range(len(code))]
        if token.type == "hr":
            return [[("─" * width, ground + look["rule"])]]
        if token.type == "table_open":
            return draw_table(group, self._source, width, look, ground)
        if token.type == "blockquote_open":
            return self._quote(group, width, ground, depth)
        if token.type in ("bullet_list_open", "ordered_list_open"):
            return self._list(group, width, ground, depth)
        style = ground + look[token.tag] if token.type == "heading_open" else ground
        return [
            line
            for inline in group
            if inline.type == "inline"
            for line in wrap(runs_of(inline, look, style), width)
        ]

    def _quote(self, group: Sequence[Token], width: int, ground: Style, depth: int) -> list[Line]:
        style = ground + self._look["quote"]
        inner = max(MIN_WIDTH, width - 2)
        lines = self.draw(group[1:-1], inner, style, depth, group[0].level + 1)
        return [[("▌ ", style + self._look["bar"]), *line] for line in lines]

    def _list(self, group: Sequence[Token], width: int, ground: Style, depth: int) -> list[Line]:
        number = first_number(group[0])
        lines: list[Line] = []
        for item in groups(group[1:-1], group[0].level + 1):
            lines += self.item(item, marker(number, depth), width, ground, depth)
            number = None if number is None else number + 1
        return lines


def first_number(token: Token) -> int | None:
    """The number that a list begins with, None for bullets."""
    return int(token.attrs.get("start", 1)) if token.type == "ordered_list_open" else None
