"""Runs of styled text, broken into rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich._wrap import divide_line
from rich.cells import cell_len, chop_cells
from textual.style import Style

from edgespec.tui.plain import plain
from edgespec.tui.transcript.look import Line

TAB = 4


def displayed(text: str) -> str:
    """`text` as rows can hold it: control characters as signs, one kind of line end, no tabs."""
    return plain(text).replace("\r\n", "\n").replace("\r", "\n").expandtabs(TAB)


def wrap(runs: Sequence[tuple[str, Style]], width: int) -> list[Line]:
    """`runs` in rows of at most `width` columns, broken between words and at line ends."""
    lines: list[Line] = []
    for line in split_lines(runs):
        text = "".join(piece for piece, _ in line)
        if cell_len(text) <= width:
            lines.append(line)
        else:
            rows = cut(line, divide_line(text, width))
            lines += [_without_end(row) for row in rows[:-1]] + rows[-1:]
    return lines


def fold(line: Line, width: int) -> list[Line]:
    """`line` in rows of at most `width` columns, broken where `fold_places` says."""
    return cut(line, fold_places("".join(piece for piece, _ in line), width))


def num_folded(text: str, width: int) -> int:
    """How many rows `fold` makes of `text`."""
    return 1 + len(fold_places(text, width))


def fold_places(text: str, width: int) -> list[int]:
    """Where a line of code is broken: after a space in the last third of a row, or else anywhere.

    >>> fold_places("if values[middle] == wanted", 10)
    [10, 18, 27]
    """
    places: list[int] = []
    if cell_len(text) <= width:
        return places
    start = 0
    while True:
        row = chop_cells(text[start : start + width], width)[0]
        if start + len(row) >= len(text):
            return places
        space = row.rfind(" ", 2 * len(row) // 3)
        start += space + 1 if space > 0 else len(row)
        places.append(start)


def split_lines(runs: Iterable[tuple[str, Style]]) -> list[Line]:
    """`runs` cut at their line ends."""
    lines: list[Line] = [[]]
    for text, style in runs:
        first, *others = text.split("\n")
        if first:
            lines[-1].append((first, style))
        lines += [[(other, style)] if other else [] for other in others]
    return lines


def cut(line: Line, places: Sequence[int]) -> list[Line]:
    """`line` cut before the characters at `places`, which rise."""
    rows: list[Line] = [[]]
    ends = [*places, sum(len(text) for text, _ in line) + 1]
    start = 0
    for run, style in line:
        text = run
        while start + len(text) > ends[len(rows) - 1]:
            taken = ends[len(rows) - 1] - start
            if taken:
                rows[-1].append((text[:taken], style))
            rows.append([])
            start, text = start + taken, text[taken:]
        if text:
            rows[-1].append((text, style))
        start += len(text)
    return rows


def _without_end(line: Line) -> Line:
    while line and not line[-1][0].rstrip():
        line = line[:-1]
    return [*line[:-1], (line[-1][0].rstrip(), line[-1][1])] if line else line
