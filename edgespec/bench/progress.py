"""How far a run is, on stderr: a table that is drawn anew in a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import fmean
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from edgespec.bench.records import Report
from edgespec.types import PLAIN


class Progress:
    """Shows the report as it grows; within the block if it is live."""

    def __init__(
        self,
        num_questions: int,
        num_before: int,
        console: Console,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`num_before` of the questions were measured before this began; `clock` gives seconds."""
        self._num_questions = num_questions
        self._num_before = num_before
        self._clock = clock
        self._started = clock()
        self._console = console
        is_live = console.is_terminal and not console.is_dumb_terminal
        self._live = Live(console=console, transient=True) if is_live else None

    def __enter__(self) -> Progress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, line: str) -> None:
        """Show what is done while nothing is measured."""
        if self._live is not None:
            self._live.update(Text(line))
        else:
            self._console.print(line, soft_wrap=True)

    def show(self, report: Report) -> None:
        """Show what is measured by now."""
        done = len(report.of(PLAIN))
        if not done:
            return
        if self._live is not None:
            self._live.update(self._table(report, done))
        elif not report.is_complete:
            self._console.print(last_line(report, self._num_questions), soft_wrap=True)

    def _table(self, report: Report, done: int) -> Table:
        title = f"{done} of {self._num_questions} questions{self._left(done)}"
        table = Table(box=None, title=title, title_justify="left", header_style="bold")
        table.add_column("way")
        for heading in ("tokens/s", "speed-up", "same"):
            table.add_column(heading, justify="right")
        speeds = {}
        for way in report.ways:
            runs = [run for run in report.of(way.name).values() if run.tokens_per_second]
            if runs:
                speed = speeds[way.name] = fmean(run.tokens_per_second for run in runs)
                against = speed / speeds[PLAIN] if speeds.get(PLAIN) else 0.0
                same = "" if way.is_peer else _same(all(run.differs_at is None for run in runs))
                table.add_row(way.name, f"{speed:.1f}", f"{against:.2f}", same)
        return table

    def _left(self, done: int) -> str:
        """How long the rest will take, if it goes on so."""
        num_measured = done - self._num_before
        if not num_measured or done >= self._num_questions:
            return ""
        each = (self._clock() - self._started) / num_measured
        return f", about {duration(each * (self._num_questions - done))} left"


def last_line(report: Report, num_questions: int) -> str:
    """One line of the question that was measured last."""
    last = report.runs[-1].question
    runs = {run.way: run for run in report.runs if run.question == last}
    plain = runs[PLAIN].tokens_per_second
    ratios = [
        f"{way.name} {runs[way.name].tokens_per_second / plain if plain else 0.0:.2f}x"
        for way in report.ways
        if way.name in runs and way.name != PLAIN
    ]
    same = _same(all(run.differs_at is None for run in runs.values()))
    done = len(report.of(PLAIN))
    question = f"{runs[PLAIN].category} {last}"
    return f"[{done}/{num_questions}] {question}: {', '.join([*ratios, same])}"


def duration(seconds: float) -> str:
    """A time for people.

    >>> duration(42.0), duration(200.0), duration(7000.0)
    ('1 min', '3 min', '1 h 57 min')
    """
    minutes = max(round(seconds / 60), 1)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _same(is_same: bool) -> str:
    return "same bytes" if is_same else "DIFFERENT"
