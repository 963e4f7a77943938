"""A report in the terminal: every way by category and overall, and what to know about it."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgespec.bench.caveats import caveats, sameness
from edgespec.bench.figures import (
    Summaries,
    Summary,
    all_ways,
    categories,
    others,
    summary,
)
from edgespec.bench.records import Report
from edgespec.bench.replay import PREDICTION, Curve, what_if
from edgespec.bench.statistics import Paired
from edgespec.types import PLAIN

DASH = "–"

_WIDE = 110
"""Columns from which on a terminal shows more."""


def stdout() -> Console:
    """The terminal, or a file of 110 columns."""
    width = None if sys.stdout.isatty() else _WIDE
    return Console(width=width, markup=False, highlight=False)


def print_table(report: Report, console: Console | None = None) -> None:
    """Print every way by category and overall; wide terminals show more of each."""
    console = console or stdout()
    target = report.target
    console.print(
        Text(f"{target.name}, drafter {target.drafter or 'none'}, promise: {target.exactness}")
    )
    is_wide, summaries = console.width >= _WIDE, Summaries(report)
    console.print(_table(summaries, is_wide=is_wide))
    console.print()
    lines = [_legend(is_wide), *_also(summaries), *sameness(summaries), *caveats(report)]
    for line in lines:
        console.print(Text(line))


def print_what_if(report: Report, curve: Curve, console: Console | None = None) -> None:
    """Print what each way would give on another machine, and that it is a prediction."""
    console = console or stdout()
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


def number(value: float | None) -> str:
    """A figure as it is shown.

    >>> number(2.117), number(None)
    ('2.12', '–')
    """
    return DASH if value is None else f"{value:.2f}"


def _table(summaries: Summaries, *, is_wide: bool) -> Table:
    report = summaries.report
    more = ("first", "MBSU", "hindsight") if is_wide else ()
    table = _columns("", "tok/s", "means", "median", "95%", "whole", "tau", "kept", *more)
    names, plain = categories(report), summaries.of(PLAIN)
    table.add_row(Text(PLAIN, style="bold"), f"{plain.tokens_per_second:.1f}")
    for way in others(report):
        table.add_row()
        label = Text(way.name, style="bold")
        table.add_row(label, *_cells(summaries.of(way.name), is_wide=is_wide))
        for name in names if len(names) > 1 else ():
            figures = summaries.of(way.name, name)
            table.add_row(Text(f"  {name}"), *_cells(figures, is_wide=is_wide))
    return table


def _cells(figures: Summary, *, is_wide: bool) -> list[str]:
    rate = figures.acceptance_rate
    cells = [
        f"{figures.tokens_per_second:.1f}",
        factor(figures.speedup),
        factor(figures.decoding.median),
        interval(figures.decoding),
        factor(figures.request.median),
        number(figures.block_efficiency),
        DASH if rate is None else f"{rate:.0%}",
    ]
    more = [
        f"{figures.first_token_ms:,.0f} ms",
        factor(figures.mbsu),
        factor(figures.hindsight),
    ]
    return cells + more if is_wide else cells


def _legend(is_wide: bool) -> str:
    said = (
        "Speed-up over plain decoding: means, the ratio of the mean tokens/s (Spec-Bench); median, "
        "of each question's own ratio; whole, the same from the request to the last byte. "
        "tau: tokens a pass. kept: accepted draft tokens."
    )
    more = (
        " first: time to the first token. MBSU: speed-up if only reading weights took time. "
        "hindsight: had each pass computed only what was kept."
    )
    return said + more if is_wide else said


def _also(summaries: Summaries) -> list[str]:
    """The roofline, energy and scores, where they are known."""
    figures = {name: summaries.of(name) for name in all_ways(summaries.report)}
    lines = []
    share = summaries.of(PLAIN).roofline_share
    if share:
        lines.append(f"Plain decoding reads weights at {share:.0%} of what memory gives.")
    joules = {name: each.joules for name, each in figures.items() if each.joules is not None}
    if joules:
        told = ", ".join(f"{name} {value:.2f}" for name, value in joules.items())
        lines.append(f"Joules a token, prompts included: {told}.")
    for score in dict.fromkeys(score for each in figures.values() for score in each.scores):
        told = ", ".join(
            f"{name} {each.scores[score]:.2f}"
            for name, each in figures.items()
            if score in each.scores
        )
        lines.append(f"Score {score}: {told}.")
    return lines


def _columns(first: str, *rest: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(Text(first), overflow="fold")
    for name in rest:
        table.add_column(name, justify="right", no_wrap=True)
    return table
