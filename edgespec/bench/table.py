"""A report in the terminal: every way by category and overall, and what to know about it."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgespec.bench.caveats import caveats, sameness
from edgespec.bench.figures import Summary, baseline, categories, others, summary
from edgespec.bench.records import Report
from edgespec.bench.replay import PREDICTION, Curve, what_if
from edgespec.bench.statistics import Paired

DASH = "–"


def print_table(report: Report, console: Console | None = None) -> None:
    """Print all figures that fit 80 columns; the rest is in the file and on the page."""
    console = console or Console(highlight=False)
    target = report.target
    console.print(
        Text(f"{target.name}, drafter {target.drafter or 'none'}, promise: {target.exactness}")
    )
    console.print(_table(report))
    for line in [*sameness(report), *caveats(report)]:
        console.print(Text(line))


def print_what_if(report: Report, curve: Curve, console: Console | None = None) -> None:
    """Print what each way would give on another machine, and that it is a prediction."""
    console = console or Console(highlight=False)
    table = _columns("on the other machine", "here", "there", "95%", "tok/s there")
    for way in others(report):
        there = what_if(report, way.name, curve)
        here = summary(report, way.name).decoding
        if there is None:
            table.add_row(way.name, factor(here.median), DASH, DASH, DASH)
        else:
            table.add_row(
                way.name,
                factor(here.median),
                factor(there.decoding.median),
                interval(there.decoding),
                f"{there.tokens_per_second:.1f}",
            )
    console.print(Text(f"{curve.machine}, {curve.model}"))
    console.print(table)
    console.print(Text(PREDICTION))
    console.print(Text(f"Source: {curve.source}"))


def factor(value: float | None) -> str:
    """A speed-up as it is shown.

    >>> factor(1.416), factor(float("nan")), factor(None)
    ('1.42x', '–', '–')
    """
    return DASH if value is None or value != value else f"{value:.2f}x"


def interval(value: Paired) -> str:
    """The 95% interval as it is shown; few questions have none.

    >>> interval(Paired(1.5, 1.4, 1.61, 24, 0.0)), interval(Paired(1.5, None, None, 5, 0.06))
    ('1.40 to 1.61', 'under 6 questions')
    """
    ends = value.interval
    return f"{ends[0]:.2f} to {ends[1]:.2f}" if ends else "under 6 questions"


def _table(report: Report) -> Table:
    table = _columns("", "tok/s", "means", "median", "95%", "whole", "tau", "kept")
    table.caption = (
        "Speed-up over plain decoding: means, the ratio of the mean tokens/s (Spec-Bench); median, "
        "of each question's own ratio; whole, that from the request to the last byte. "
        "tau: tokens a pass. kept: accepted draft tokens."
    )
    names = categories(report)
    base = baseline(report)
    for way in [base, *(each.name for each in others(report))]:
        figures = summary(report, way)
        table.add_section()
        label = Text(way, style="bold")
        table.add_row(*([label, *_cells(figures)] if way != base else _plain_cells(label, figures)))
        if len(names) > 1 and way != base:
            for name in names:
                table.add_row(Text(f"  {name}"), *_cells(summary(report, way, [name])))
    return table


def _plain_cells(label: Text, figures: Summary) -> list[Text | str]:
    return [label, f"{figures.tokens_per_second:.1f}"]


def _cells(figures: Summary) -> list[str]:
    rate, tau = figures.acceptance_rate, figures.block_efficiency
    return [
        f"{figures.tokens_per_second:.1f}",
        factor(figures.speedup),
        factor(figures.decoding.median),
        interval(figures.decoding),
        factor(figures.request.median),
        DASH if tau is None else f"{tau:.2f}",
        DASH if rate is None else f"{rate:.0%}",
    ]


def _columns(first: str, *rest: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), caption_justify="left")
    table.add_column(Text(first), overflow="fold")
    for name in rest:
        table.add_column(name, justify="right", no_wrap=True)
    return table
