"""Counts and times of one answer while it grows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from edgespec.types import Draft, DrafterCounts, SpeculationStats, Timings


class Tally:
    """Collects what `SpeculationStats` and `Timings` report; `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._start = clock()
        self._prefilled: float | None = None
        self._first: float | None = None
        self._last = self._start
        self._passes = 0
        self._emitted = 0
        self._proposed: Counter[str] = Counter()
        self._accepted: Counter[str] = Counter()
        self.num_prompt_tokens = 0
        self.num_cached_tokens = 0
        self.plain_token_ms: float | None = None

    def prefilled(self, num_prompt_tokens: int, num_cached_tokens: int) -> None:
        """The prompt's last logits are there."""
        self._prefilled = self._clock()
        self.num_prompt_tokens = num_prompt_tokens
        self.num_cached_tokens = num_cached_tokens

    def verified(self, draft: Draft, num_emitted: int) -> None:
        """One pass is verified: it emitted the first of `draft` and one token of the target's."""
        self._last = self._clock()
        self._first = self._first or self._last
        self._passes += 1
        self._emitted += num_emitted
        self._proposed.update(draft.sources)
        self._accepted.update(draft.sources[: min(num_emitted - 1, len(draft))])

    def stats(self) -> SpeculationStats:
        """The counts so far."""
        by_drafter = {
            name: DrafterCounts(count, self._accepted[name])
            for name, count in self._proposed.items()
        }
        return SpeculationStats(self._emitted, self._passes, by_drafter)

    def timings(self) -> Timings:
        """The times so far; phases not reached count as 0."""
        prefilled = self._prefilled or self._last
        first = self._first or prefilled
        return Timings(
            prompt_ms=(prefilled - self._start) * 1e3,
            decode_ms=max(self._last - prefilled, 0.0) * 1e3,
            time_to_first_token_ms=(first - self._start) * 1e3,
            num_prompt_tokens=self.num_prompt_tokens,
            num_cached_tokens=self.num_cached_tokens,
            num_decoded_tokens=self._emitted,
            plain_token_ms=self.plain_token_ms,
        )
