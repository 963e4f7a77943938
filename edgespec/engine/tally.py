"""Counts and times of one answer while it grows.

What a token would have taken without drafts is told by the passes of the same answer, because what
was measured before does not know how busy the machine is now:

    plain = what one row was expected to take x drift + what is not computing, of each token

The drift is how much longer passes took than expected. Passes of one row tell it best; where they
are few, all passes do, which trusts the shape of T(r). Without drafts, plain is thus what really
was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from edgespec.passes import Kept, PassRecord
from edgespec.types import TARGET, DrafterCounts, SpeculationStats, Timings, drafter_of

_LEAST_PASSES = 4
"""So many passes tell how busy the machine is."""

_LEAST_SHARE = 8
"""Passes of one row tell it alone if they are an eighth of all."""


class _Witness:
    """What passes took and were expected to take."""

    def __init__(self) -> None:
        self.num_passes = 0
        self.taken_ms = 0.0
        self.expected_ms = 0.0

    def take(self, record: PassRecord) -> None:
        """A pass is over."""
        self.num_passes += 1
        self.taken_ms += record.target_ms
        self.expected_ms += record.predicted_ms


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
        self._single, self._all = _Witness(), _Witness()
        self._plain_ms = 0.0  # expected of passes without drafts, one for each there was
        self._drafter_ms = 0.0
        self._text_ms = 0.0
        self._is_shared = False

    def take(self, kept: Kept, text_ms: float = 0.0) -> None:
        """A pass is over; its tokens took so long to become text."""
        self._last = self._clock()
        if kept.progress is not None:
            self.num_prompt_tokens = kept.progress.num_prompt_tokens
            self.num_cached_tokens = kept.progress.num_cached
        if not kept.tokens:
            return
        if self._first is None:
            self._first = self._last
        else:
            self._text_ms += text_ms
        self._passes += 1
        self._emitted += len(kept.tokens)
        self._proposed.update(kept.proposed)
        self._accepted.update(drafter_of(source) for source in kept.sources if source != TARGET)
        if kept.record.predicted_ms:
            self._witness(kept.record)

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
            plain_token_ms=self._plain_token_ms((self._last - first) * 1e3),
            text_ms=self._text_ms,
        )

    def _witness(self, record: PassRecord) -> None:
        self._all.take(record)
        if record.num_pass_rows == 1:
            self._single.take(record)
        self._plain_ms += record.plain_ms
        self._drafter_ms += sum(record.drafter_ms.values())
        self._is_shared |= record.num_rows != record.num_pass_rows

    def _plain_token_ms(self, decode_ms: float) -> float | None:
        """What a token would have taken without drafts while this answer was written."""
        num_passes = self._all.num_passes
        if num_passes < _LEAST_PASSES or self._is_shared or self._emitted < 2:
            return None
        is_enough = self._single.num_passes >= max(_LEAST_PASSES, num_passes / _LEAST_SHARE)
        witness = self._single if is_enough else self._all
        drift = witness.taken_ms / witness.expected_ms
        other_ms = max(decode_ms - self._all.taken_ms - self._drafter_ms, 0.0)
        return drift * self._plain_ms / num_passes + other_ms / (self._emitted - 1)
