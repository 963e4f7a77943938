"""Tables, fitted into the width: cells wrap, and nothing is left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len
from textual.style import Style

from edgespec.tui.transcript.inline import runs_of
from edgespec.tui.transcript.look import Line, Look, filled
from edgespec.tui.transcript.markdown import parse_inline, surplus_cells
from edgespec.tui.transcript.wrapping import wrap

if TYPE_CHECKING:
    from markdown_it.token import Token

MIN_COLUMN = 4
"""Columns below which a cell cannot be read: such a table is written row by row instead."""


def draw_table(
    tokens: Sequence[Token], source: Sequence[str], width: int, look: Look, ground: Style
) -> list[Line]:
    """The rows of a table; `source` are the lines of the text that `tokens` are of."""
    rows = _cells(tokens, source, look, ground)
    aligns = [str(token.attrs.get("style", "")) for token in tokens if token.type == "th_open"]
    natural = [
        max(cell_len(line) for row in rows for line in _text(row[column]).split("\n"))
        for column in range(len(aligns))
    ]
    widths = fit(natural, width - 3 * (len(aligns) - 1))
    if min(widths) < min(MIN_COLUMN, *natural):
        return [line for row in rows for line in wrap(_joined(row, ground), width)]
    style = ground + look["rule"]
    rule: Line = [("─┼─".join("─" * column for column in widths), style)]
    drawn = [_draw_row(row, widths, aligns, style, ground) for row in rows]
    is_open = any(len(lines) > 1 for lines in drawn)
    lines = [*drawn[0], rule]
    for index, row_lines in enumerate(drawn[1:]):
        lines += [rule, *row_lines] if is_open and index else row_lines
    return lines


def fit(natural: Sequence[int], width: int) -> list[int]:
    """Widths of columns that have `width` in all: the narrow get theirs, the wide share the rest.

    >>> fit([3, 40, 20], 33)
    [3, 15, 15]
    """
    widths = [0] * len(natural)
    order = sorted(range(len(natural)), key=lambda column: natural[column])
    for place, column in enumerate(order):
        share = max(1, width // (len(order) - place))
        widths[column] = max(1, min(natural[column], share))
        width -= widths[column]
    return widths


def _cells(
    tokens: Sequence[Token], source: Sequence[str], look: Look, ground: Style
) -> list[list[Line]]:
    rows: list[list[Line]] = []
    start = tokens[0].map[0] if tokens[0].map else 0
    style = ground
    for index, token in enumerate(tokens):
        if token.type == "tr_open":
            rows.append([])
        elif token.type in ("th_open", "td_open"):
            style = ground + look["head"] if token.type == "th_open" else ground
        elif token.type == "inline":
            rows[-1].append(runs_of(token, look, style))
        elif token.type == "tr_close":
            # row 1 of the source is the line of dashes
            line = start + len(rows) - 1 + (len(rows) > 1)
            surplus = surplus_cells(source[line], len(rows[0])) if line < len(source) else ""
            if surplus and tokens[index - 1].type != "th_close":
                rows[-1][-1] += [(" | ", style), *runs_of(parse_inline(surplus), look, style)]
    return rows


def _draw_row(
    row: Sequence[Line], widths: Sequence[int], aligns: Sequence[str], rule: Style, ground: Style
) -> list[Line]:
    cells = [wrap(cell, width) for cell, width in zip(row, widths, strict=True)]
    lines: list[Line] = []
    for index in range(max(len(cell) for cell in cells)):
        line: Line = []
        for cell, width, align in zip(cells, widths, aligns, strict=True):
            text = cell[index] if index < len(cell) else []
            line += [(" │ ", rule)] if line else []
            line += _aligned(text, width, align, ground)
        lines.append(line)
    return lines


def _aligned(line: Line, width: int, align: str, ground: Style) -> Line:
    space = width - cell_len(_text(line))
    before = space if "right" in align else space // 2 if "center" in align else 0
    return filled([(" " * before, ground), *line] if before > 0 else line, width, ground)


def _joined(row: Sequence[Line], ground: Style) -> Line:
    line: Line = []
    for index, cell in enumerate(row):
        line += [(" | ", ground), *cell] if index else cell
    return line


def _text(line: Line) -> str:
    return "".join(text for text, _ in line)
