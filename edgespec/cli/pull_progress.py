"""A pull as a user sees it, on stderr: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from edgespec.reports import human_bytes

_SECONDS_BETWEEN_LINES = 5.0


@contextlib.contextmanager
def pull_display() -> Iterator[PullDisplay]:
    """The display that suits stderr; what it drew is finished when the block ends."""
    if not sys.stderr.isatty():
        yield PullDisplay()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=False),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False) as progress:
        yield BarDisplay(progress)


class PullDisplay:
    """Shows several pulls, one after another; implements `edgespec.catalog.PullProgress`.

    A line at the start, one every few seconds, and one at the end: for logs and pipes.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._name = ""
        self._total: int | None = None
        self._last = clock()

    @contextlib.contextmanager
    def model(self, name: str) -> Iterator[None]:
        """While the block runs, progress is of the model `name`."""
        self._name = name
        yield

    def begin(self, label: str, total: int | None) -> None:
        """Say what begins."""
        self._total = total
        size = human_bytes(total) if total is not None else "unknown size"
        self.say(f"{self._name}: reading from {label}, {size}")
        self._last = self._clock()

    def at(self, num_bytes: int) -> None:
        """Say how far it is, if that was not said just now."""
        if self._clock() - self._last < _SECONDS_BETWEEN_LINES:
            return
        self._last = self._clock()
        share = f" ({num_bytes * 100 // self._total} %)" if self._total else ""
        self.say(f"{self._name}: {human_bytes(num_bytes)}{share}")

    def say(self, text: str) -> None:
        """Print a line for people."""
        click.echo(text, err=True)

    def print(self, line: str) -> None:
        """Write a line of data to stdout."""
        with self.paused():
            click.echo(line)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """While the block runs, the terminal is free for a question."""
        yield


class BarDisplay(PullDisplay):
    """One bar per model: bytes, speed and time left."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress
        self._task: TaskID | None = None
        self._fresh = True

    @contextlib.contextmanager
    def model(self, name: str) -> Iterator[None]:
        """Give the model a bar as soon as it begins."""
        self._name, self._task = name, None
        try:
            yield
        finally:
            self._stop_clock()

    def begin(self, label: str, total: int | None) -> None:
        """Start the bar anew for this source."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(f"{self._name} ({label})", total=total)
        self._fresh = True

    def at(self, num_bytes: int) -> None:
        """Move the bar; what was there before this run does not count as speed."""
        if self._task is None:
            return
        if self._fresh and num_bytes:
            self._progress.reset(self._task, completed=num_bytes)
        else:
            self._progress.update(self._task, completed=num_bytes)
        self._fresh = self._fresh and not num_bytes

    def say(self, text: str) -> None:
        """Print a sentence above the bar."""
        self._progress.console.print(text, highlight=False, markup=False)

    def _stop_clock(self) -> None:
        if self._task is not None:
            self._progress.stop_task(self._task)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Take the bar off the terminal for a while."""
        self._progress.stop()
        try:
            yield
        finally:
            self._progress.start()
