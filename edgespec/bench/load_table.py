"""Servers under load in the terminal: a row for each server and number of clients."""

from __future__ import annotations

import math

from rich.console import Console
from rich.table import Table

from edgespec.bench.load import BUSY
from edgespec.bench.load_figures import LoadFigures, load_figures
from edgespec.bench.records import LoadReport
from edgespec.bench.statistics import Paired
from edgespec.bench.table import stdout

_HEADINGS = ("clients", "server", "tokens/s", "ratio", "95 %", "first", "gap", "fair", "failed")
_CAPTION = (
    "tokens/s of all clients together, medians over rounds. ratio: by the first server's, round by "
    "round; an interval needs 6. first: ms to the first text, p50 and p95. gap: ms between pieces "
    "of text, p50, p95 and longest. fair: the least tokens/s of a client by the most."
)


def print_load(report: LoadReport, console: Console | None = None) -> None:
    """Print all figures, and what to know before they are believed."""
    console = console or stdout()
    for server in report.servers:
        console.print(f"{server.name}: {server.about}", soft_wrap=True)
    table = Table(box=None, header_style="bold", caption=_CAPTION, caption_justify="left")
    for heading in _HEADINGS:
        table.add_column(heading, justify="left" if heading in ("server", "failed") else "right")
    for num_clients in sorted({block.num_clients for block in report.blocks}):
        for server in report.servers:
            figures = load_figures(report, server.name, num_clients)
            if figures is not None:
                table.add_row(str(num_clients), server.name, *_cells(figures))
    console.print(table)
    for line in doubts(report):
        console.print(line, soft_wrap=True)


def doubts(report: LoadReport) -> list[str]:
    """What to know before the figures are believed, a line each."""
    lines = [] if report.is_complete else ["Cut short: the figures are of what was finished."]
    busy = max((block.busy for block in report.blocks), default=0.0)
    if busy > BUSY:
        lines.append(f"This machine was not at rest before each block: up to {busy:.0%} in use.")
    pieces = {
        block.server
        for block in report.blocks
        if any(not answer.failure and not answer.is_counted for answer in block.answers)
    }
    lines += [f"{name} counts no tokens: its pieces of text are counted." for name in pieces]
    return lines + [f"Left out: {line}" for line in report.left_out]


def _cells(figures: LoadFigures) -> list[str]:
    return [
        f"{figures.speed.median:.1f}",
        "" if figures.ratio is None else f"{figures.ratio.median:.2f}",
        _interval(figures.ratio),
        " ".join(map(_ms, figures.first)),
        " ".join(map(_ms, figures.gap)),
        "" if math.isnan(figures.fairness) else f"{figures.fairness:.2f}",
        ", ".join(f"{count} {kind}" for kind, count in sorted(figures.failures.items())),
    ]


def _interval(ratio: Paired | None) -> str:
    ends = ratio.interval if ratio is not None else None
    return "" if ends is None else f"{ends[0]:.2f} to {ends[1]:.2f}"


def _ms(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.0f}"
