"""The latest positions that the target said, to learn from again and again."""

from __future__ import annotations

import numpy as np

from edgespec.learning.online.examples import Examples


class Replay:
    """Keeps the last `capacity` positions; the newest text is drawn from more often."""

    def __init__(self, capacity: int, seed: int) -> None:
        """A position takes about two kilobytes."""
        self._capacity = capacity
        self._random = np.random.default_rng(seed)
        self._examples: Examples | None = None
        self._num_newest = 0

    def __len__(self) -> int:
        return 0 if self._examples is None else len(self._examples)

    def add(self, lesson: Examples) -> None:
        """Append one text; the oldest positions go."""
        if not len(lesson):
            return
        before = [] if self._examples is None else [self._examples]
        joined = Examples.joined([*before, lesson])
        self._examples = joined.take(slice(max(len(joined) - self._capacity, 0), None))
        self._num_newest = min(len(lesson), self._capacity)

    def draw(self, count: int, newest_share: float) -> Examples:
        """`count` positions, at about `newest_share` from the newest text; needs at least one."""
        assert self._examples is not None
        num_newest = round(count * newest_share)
        total = len(self._examples)
        newest = total - 1 - self._random.integers(0, self._num_newest, num_newest)
        others = self._random.integers(0, total, count - num_newest)
        return self._examples.take(np.concatenate([newest, others]))

    def clear(self) -> None:
        """Forget everything."""
        self._examples, self._num_newest = None, 0
