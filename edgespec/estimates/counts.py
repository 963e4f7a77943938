"""Acceptance estimates learned from what the target really kept, by kind of evidence.

A drafter sorts its guesses into numbered kinds (a long match with much support, a short one with
little). Each kind keeps counts of guesses that were right and wrong; the estimate is their
posterior mean under a Beta prior. Old counts fade, so that a change of subject is noticed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PRIOR_STRENGTH = 8.0
"""How many observations the prior is worth."""

MEMORY = 400.0
"""Observations of one kind after which the oldest count half."""


class Calibration:
    """Counts per kind of evidence; `estimate` and `observe` take constant time."""

    def __init__(self, prior: Sequence[float]) -> None:
        """`prior[i]` is the acceptance to assume of evidence kind i before any observation."""
        self._prior = np.clip(np.asarray(prior, dtype=np.float64), 0.001, 0.999)
        self._right = np.zeros(len(prior))
        self._wrong = np.zeros(len(prior))

    @property
    def num_kinds(self) -> int:
        """Kinds of evidence."""
        return len(self._prior)

    def estimate(self, kind: int) -> float:
        """Probability that a guess of this kind is kept, given that those before it were."""
        right = self._right[kind] + PRIOR_STRENGTH * self._prior[kind]
        return float(right / (self._right[kind] + self._wrong[kind] + PRIOR_STRENGTH))

    def observe(self, kind: int, kept: bool) -> None:
        """Count one guess of this kind."""
        fade = 0.5 ** (1.0 / MEMORY)
        self._right[kind] = self._right[kind] * fade + kept
        self._wrong[kind] = self._wrong[kind] * fade + (not kept)

    def export(self) -> list[list[float]]:
        """The counts, for keeping: one [right, wrong] a kind, rounded to 0.01."""
        return np.round(np.stack([self._right, self._wrong], axis=1), 2).tolist()  # type: ignore[no-any-return]

    def restore(self, counts: Sequence[Sequence[float]]) -> None:
        """Take back exported counts; whatever else was kept in their place is ignored."""
        try:
            array = np.asarray(counts, dtype=np.float64)
        except (TypeError, ValueError):  # ragged, or no numbers
            return
        if array.shape == (self.num_kinds, 2) and np.isfinite(array).all() and (array >= 0).all():
            self._right, self._wrong = array[:, 0].copy(), array[:, 1].copy()
