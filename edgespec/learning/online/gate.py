"""Which version may serve: judged by text that none of them had learned from when it was said.

Every answer is new to all versions when it comes. Each says what it would have guessed at each of
its positions, and only then is learned from. Two things are decided by that:

- a new correction takes the place of the one in use after it was right more often over enough
  positions;
- what serves is the drafter alone, the correction, the neighbours, or both: whichever was right
  most often lately, when it leads by more than chance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgespec.learning.online.correction import Correction
from edgespec.learning.online.neighbours import Neighbours
from edgespec.learning.online.version import Version

Verdict = Literal["waiting", "promoted", "refused", "harmful"]
"""What became of the candidate; "harmful": so much worse that it was not chance."""

ALONE, CORRECTED, NEIGHBOURS, BOTH, CANDIDATE = range(5)
"""Places in `Gate.versions` and of the rows that `Gate.judge` wants."""

MIN_TRIAL = 96
"""Positions over which a candidate is tried at least."""

MEMORY = 1500.0
"""Positions after which what is known of the ways to serve counts half."""

_CERTAIN = 2.5
"""Standard deviations of a difference that is not chance."""

_HYSTERESIS = 1.0
"""Standard deviations by which another way must lead to serve instead."""


@dataclass(slots=True)
class _Duel:
    """Positions where exactly one of two was right."""

    num_positions: float = 0.0
    lead: float = 0.0
    num_discordant: float = 0.0

    def add(self, ours: NDArray[np.bool_], theirs: NDArray[np.bool_], fade: float = 1.0) -> None:
        self.num_positions = self.num_positions * fade + len(ours)
        self.lead = self.lead * fade + float(ours.sum()) - float(theirs.sum())
        self.num_discordant = self.num_discordant * fade + float((ours != theirs).sum())

    @property
    def deviations(self) -> float:
        """By how many standard deviations of chance ours leads; below 0 if theirs does."""
        return self.lead / math.sqrt(max(self.num_discordant, 1.0))


class Gate:
    """Holds the correction in use, at most one candidate for its place, and what serves."""

    def __init__(
        self, num_embedding: int, correction: Correction | None = None, way: int = ALONE
    ) -> None:
        """`correction` and `way` are those of an earlier run; by default the drafter is alone.

        `way` is ALONE, CORRECTED, NEIGHBOURS or BOTH.
        """
        self._none = Version.none(num_embedding)
        self.correction = self._none.correction if correction is None else correction
        self.way = way
        self._neighbours: Neighbours | None = None
        self._candidate: Correction | None = None
        self._trial = _Duel()
        self._duels = [[_Duel() for _ in range(CANDIDATE)] for _ in range(CANDIDATE)]
        self._update()

    @property
    def serving(self) -> Version:
        """What serves."""
        return self._versions[self.way]

    @property
    def has_candidate(self) -> bool:
        """Whether one is on trial."""
        return self._candidate is not None

    def versions(self) -> Sequence[Version]:
        """Whose guesses `judge` wants: the four ways to serve, and the candidate alone.

        Those that are the same are the same object.
        """
        return self._versions

    def refresh(self, neighbours: Neighbours | None) -> None:
        """Ask these neighbours from now on, which know later text."""
        self._neighbours = neighbours
        self._update()

    def offer(self, candidate: Correction) -> bool:
        """Put a new correction on trial in place of any other; False if it holds no numbers."""
        self._candidate, self._trial = None, _Duel()
        is_finite = Version(candidate).is_finite
        if is_finite:
            self._candidate = candidate
        self._update()
        return is_finite

    def judge(self, hits: NDArray[np.bool_]) -> Verdict:
        """Learn from new text which of `versions` guessed right: (5, num_positions)."""
        fade = 0.5 ** (hits.shape[1] / MEMORY)
        for ours, row in enumerate(self._duels):
            for theirs, duel in enumerate(row):
                duel.add(hits[ours], hits[theirs], fade)
        self._choose()
        verdict = self._try(hits)
        self._update()
        return verdict

    def _choose(self) -> None:
        """Serve in the way that leads the present one by most, if it is more than chance."""
        leads = [row[self.way].lead for row in self._duels]
        best = max(range(CANDIDATE), key=lambda way: leads[way])
        if self._duels[best][self.way].deviations > _HYSTERESIS:
            self.way = best

    def _try(self, hits: NDArray[np.bool_]) -> Verdict:
        if self._candidate is None:
            return "waiting"
        self._trial.add(hits[CANDIDATE], hits[CORRECTED])
        if self._trial.num_positions < MIN_TRIAL:
            return "waiting"
        candidate, self._candidate = self._candidate, None
        if self._trial.lead > 0:
            self.correction = candidate
            return "promoted"
        return "harmful" if self._trial.deviations < -_CERTAIN else "refused"

    def _update(self) -> None:
        corrected = self._none if self.correction.is_none else Version(self.correction)
        if self._neighbours is None:
            asking, both = self._none, corrected
        else:
            asking = Version(self._none.correction, self._neighbours)
            both = asking if corrected is self._none else Version(self.correction, self._neighbours)
        trial = corrected if self._candidate is None else Version(self._candidate)
        self._versions = (self._none, corrected, asking, both, trial)
