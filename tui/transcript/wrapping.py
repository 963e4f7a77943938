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
    """`line` in rows of `width` columns, broken anywhere: code keeps its spaces."""
    text = "".join(piece for piece, _ in line)
    if cell_len(text) <= width:
        return [line]
    ends: list[int] = []
    for row in chop_cells(text, width):
        ends.append((ends[-1] if ends else 0) + len(row))
    return cut(line, ends[:-1])


def num_folded(text: str, width: int) -> int:
    """How many rows `fold` makes of `text`."""
    return 1 if cell_len(text) <= width else len(chop_cells(text, width))


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
