"""Models as faces show them: what is on disk, what can be pulled, and how a pull is going."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from edgespec.reports import human_bytes

Role = Literal["target", "drafter"]

_SPEED_S, _LEAST_S = 5.0, 0.5
"""The speed of a pull is that of its last seconds; it takes a moment to be known."""


@dataclass(frozen=True, slots=True)
class CatalogModel:
    """A model that is on disk or can be pulled; `name` is what `--model` understands.

    `terms` must be accepted before it is pulled: None without any, or if they were. `roles` says
    what it is good for. `fits` says in words whether it fits into memory as a target, `speed` how
    fast it answered here without drafts, None if that is not known. `path` is None for what is not
    on disk, `licence` for what is not known.
    """

    name: str
    title: str
    size_bytes: int
    licence: str | None
    terms: str | None
    is_on_disk: bool
    roles: tuple[Role, ...]
    fits: str
    speed: str | None
    path: Path | None


AcceptTerms = Callable[[CatalogModel], bool]
"""Shows somebody the terms of a model and tells whether they accept them."""


class PullProgress(Protocol):
    """Shows one pull to a user; called from the pulling thread, often."""

    def begin(self, label: str, total: int | None) -> None:
        """A file of `total` bytes (None if not known) is now being fetched from `label`."""
        ...

    def at(self, num_bytes: int) -> None:
        """`num_bytes` of the file are here; less than before when a source had to start again."""
        ...

    def say(self, text: str) -> None:
        """Something the user should know, in one sentence."""
        ...


class Catalog(Protocol):
    """Lists models and pulls them; every method waits, and may be called from any thread."""

    def models(self) -> list[CatalogModel]:
        """What is on disk, then what can be pulled; raises StorageError."""
        ...

    def pull(
        self,
        name: str,
        progress: PullProgress,
        accept_terms: AcceptTerms,
        is_cancelled: Callable[[], bool],
    ) -> Path:
        """Have the model on disk, and tell where.

        `accept_terms` is asked where terms are to be accepted. Raises Cancelled soon after
        `is_cancelled`, BusyError if it is being pulled already, UnknownModelError, NetworkError,
        ChecksumError, StorageError, ModelFileError, UsageError; what came is kept, and the next
        pull goes on from there.
        """
        ...


@dataclass(frozen=True, slots=True)
class PullState:
    """How far a pull is; `total` and `bytes_per_second` are None until they are known.

    >>> PullState("tiny", "the Hub", 250_000_000, 1_000_000_000, 5e6).describe()
    '250.0 MB of 1.00 GB · 5.00 MB/s · 2 min left'
    """

    name: str
    source: str = ""
    num_bytes: int = 0
    total: int | None = None
    bytes_per_second: float | None = None
    said: str = ""

    @property
    def share(self) -> float | None:
        """Part of the file that is here, 0 to 1."""
        return min(self.num_bytes / self.total, 1.0) if self.total else None

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the whole file is here at this speed."""
        if self.total is None or not self.bytes_per_second:
            return None
        return max(self.total - self.num_bytes, 0) / self.bytes_per_second

    def describe(self) -> str:
        """Bytes, speed and time left, as far as they are known."""
        if not self.source:
            return self.said or "beginning"
        parts = [human_bytes(self.num_bytes)]
        if self.total is not None:
            parts[0] += f" of {human_bytes(self.total)}"
        if self.bytes_per_second:
            parts.append(f"{human_bytes(round(self.bytes_per_second))}/s")
        if self.seconds_left is not None:
            parts.append(f"{time_left(self.seconds_left)} left")
        return " · ".join(parts)


def time_left(seconds: float) -> str:
    """A duration in the one unit that matters.

    >>> time_left(8.2), time_left(95), time_left(8000)
    ('8 s', '2 min', '2 h')
    """
    if seconds < 60:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.0f} h"


class PullMeter:
    """Implements `PullProgress`: makes states of it, with the speed of the last seconds.

    What was there before the pull does not count as speed.
    """

    def __init__(
        self,
        name: str,
        show: Callable[[PullState], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`show` is called with every new state, in the pulling thread."""
        self.state = PullState(name)
        self._show = show
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()

    def begin(self, label: str, total: int | None) -> None:
        """Start anew with this source."""
        self._seen.clear()
        self._put(source=label, num_bytes=0, total=total, bytes_per_second=None)

    def at(self, num_bytes: int) -> None:
        """Take in how far it is."""
        now = self._clock()
        if num_bytes < self.state.num_bytes:
            self._seen.clear()
        self._seen.append((now, num_bytes))
        while len(self._seen) > 2 and now - self._seen[1][0] > _SPEED_S:
            self._seen.popleft()
        since, before = self._seen[0]
        speed = (num_bytes - before) / (now - since) if now - since >= _LEAST_S else None
        self._put(num_bytes=num_bytes, bytes_per_second=speed)

    def say(self, text: str) -> None:
        """Take in a sentence."""
        self._put(said=text)

    def _put(self, **changes: object) -> None:
        self.state = replace(self.state, **changes)  # type: ignore[arg-type]
        self._show(self.state)
