"""The printed table of a benchmark: each way beside plain decoding, by category and overall."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from statistics import fmean

from rich.console import Console
from rich.table import Table

from edgespec.bench.records import PLAIN, Report, Run


def print_table(report: Report) -> None:
    """Print figures of every way on stdout; their formulas are those of docs/metrics.md."""
    headings = ("category", "way", "questions", "plain t/s", "t/s", "speed-up", "tau", "accepted")
    table = Table(box=None, header_style="bold")
    for heading in (*headings, "same"):
        is_word = heading in ("category", "way", "same")
        table.add_column(heading, justify="left" if is_word else "right")
    names = list(dict.fromkeys(run.category for run in report.runs))
    for category in (*names, None):
        for way in report.ways:
            if way.name != PLAIN or len(report.ways) == 1:
                runs = [
                    run for run in report.of(way.name).values() if category in (None, run.category)
                ]
                if runs:
                    table.add_row(category or "overall", way.name, *_cells(runs, report.of(PLAIN)))
    console = Console(width=None if sys.stdout.isatty() else 110, markup=False, highlight=False)
    target = report.target
    heading = f"{target.name}, drafter {target.drafter}, promise: {target.exactness}"
    console.print(heading, soft_wrap=True)
    if target.settings.get("provisional"):
        rows = f"{target.settings['max_rows']} rows a pass are proved so far"
        console.print(f"{rows}: `edgespec doctor` measures the rest", soft_wrap=True)
    console.print(table)


def _cells(runs: Sequence[Run], plain: dict[str, Run]) -> list[str]:
    """The figures of some runs of a way; answers of a single token have no speed and count not."""
    timed = [run for run in runs if run.tokens_per_second and plain[run.question].tokens_per_second]
    slow = fmean([plain[run.question].tokens_per_second for run in timed]) if timed else 0.0
    fast = fmean([run.tokens_per_second for run in timed]) if timed else 0.0
    passes = sum(run.target_passes for run in runs)
    counts = [count for run in runs for count in run.by_source.values()]
    proposed = sum(count.proposed for count in counts)
    return [
        str(len(runs)),
        f"{slow:.2f}",
        f"{fast:.2f}",
        f"{fast / slow if slow else 0.0:.3f}",
        f"{sum(run.num_tokens for run in runs) / passes:.2f}" if passes else "",
        f"{sum(count.accepted for count in counts) / proposed if proposed else 0.0:.2f}",
        "yes" if all(run.differs_at is None for run in runs) else "NO",
    ]
