"""Counts and times of one answer while it grows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from edgespec.passes import Kept
from edgespec.types import TARGET, DrafterCounts, SpeculationStats, Timings


class Tally:
    """Collects what `SpeculationStats` and `Timings` report; `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._start = clock()
        self._first: float | None = None
        self._last = self._start
        self._passes = 0
        self._emitted = 0
        self._proposed: Counter[str] = Counter()
        self._accepted: Counter[str] = Counter()
        self.num_prompt_tokens = 0
        self.num_cached_tokens = 0
        self.plain_token_ms: float | None = None

    def take(self, kept: Kept) -> None:
        """A pass is over."""
        self._last = self._clock()
        if kept.progress is not None:
            self.num_prompt_tokens = kept.progress.num_prompt_tokens
            self.num_cached_tokens = kept.progress.num_cached
        if not kept.tokens:
            return
        if self._first is None:
            self._first = self._last
        self._passes += 1
        self._emitted += len(kept.tokens)
        self._proposed.update(kept.proposed)
        self._accepted.update(source for source in kept.sources if source != TARGET)

    def stats(self) -> SpeculationStats:
        """The counts so far."""
        by_drafter = {
            name: DrafterCounts(count, self._accepted[name])
            for name, count in self._proposed.items()
        }
        return SpeculationStats(self._emitted, self._passes, by_drafter)

    def timings(self) -> Timings:
        """The times so far; phases not reached count as 0."""
        first = self._last if self._first is None else self._first
        return Timings(
            prompt_ms=(first - self._start) * 1e3,
            decode_ms=(self._last - first) * 1e3,
            time_to_first_token_ms=(first - self._start) * 1e3,
            num_prompt_tokens=self.num_prompt_tokens,
            num_cached_tokens=self.num_cached_tokens,
            num_decoded_tokens=self._emitted,
            plain_token_ms=self.plain_token_ms,
        )
