"""Which version may serve: judged by text that none of them had learned from when it was said.

Every answer is new to all versions when it comes. Each says what it would have guessed at each of
its positions, and only then is learned from. A candidate serves after it was right more often than
the serving one over enough positions; the serving one is dropped when the drafter alone has lately
been right more often.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgespec.adapt.neighbours import Neighbours
from edgespec.adapt.version import Version

Verdict = Literal["waiting", "promoted", "refused", "harmful", "dropped"]
"""What became of the candidate, or, "dropped", of the serving one.

"harmful": refused, and so much worse that it was not chance.
"""

MIN_TRIAL = 96
"""Positions over which a candidate is tried at least."""

MEMORY = 1500.0
"""Positions after which what is known of the serving one counts half."""

_CERTAIN = 2.5
"""Standard deviations of a difference that is not chance."""


@dataclass(slots=True)
class _Duel:
    """Positions where exactly one of two versions was right."""

    num_positions: float = 0.0
    lead: float = 0.0
    num_discordant: float = 0.0

    def add(self, ours: NDArray[np.bool_], theirs: NDArray[np.bool_], fade: float = 1.0) -> None:
        self.num_positions = self.num_positions * fade + len(ours)
        self.lead = self.lead * fade + float(ours.sum()) - float(theirs.sum())
        self.num_discordant = self.num_discordant * fade + float((ours != theirs).sum())

    @property
    def is_certainly_lost(self) -> bool:
        return self.lead < -_CERTAIN * math.sqrt(max(self.num_discordant, 1.0))


class Gate:
    """Holds the serving version and at most one candidate for its place."""

    def __init__(self, num_embedding: int, serving: Version | None = None) -> None:
        """`serving` is one that served before; by default the drafter serves as it is."""
        self._none = Version.none(num_embedding)
        self.serving = self._none if serving is None else serving
        self._candidate: Version | None = None
        self._trial = _Duel()
        self._service = _Duel()

    @property
    def has_candidate(self) -> bool:
        """Whether one is on trial."""
        return self._candidate is not None

    def versions(self) -> tuple[Version, Version, Version]:
        """Whose guesses `judge` wants: no correction, the serving one, the candidate."""
        candidate = self.serving if self._candidate is None else self._candidate
        return self._none, self.serving, candidate

    def offer(self, candidate: Version) -> bool:
        """Put a new version on trial in place of any other; False if it holds no numbers."""
        self._candidate, self._trial = None, _Duel()
        if not candidate.is_finite:
            return False
        self._candidate = candidate
        return True

    def refresh(self, neighbours: Neighbours) -> None:
        """Let the versions that ask neighbours ask these, which know later text."""
        self.serving = _asking(self.serving, neighbours)
        if self._candidate is not None:
            self._candidate = _asking(self._candidate, neighbours)

    def judge(self, hits: NDArray[np.bool_]) -> Verdict:
        """Learn from new text which of `versions` guessed right: (3, num_positions)."""
        alone, serving, candidate = hits
        if self._candidate is not None:
            self._trial.add(candidate, serving)
        verdict = self._decide()
        if verdict == "promoted":
            self._service = _Duel()
            self._service.add(candidate, alone)
        elif not self.serving.is_none:
            self._service.add(serving, alone, 0.5 ** (len(alone) / MEMORY))
            if self._service.lead < 0 and self._service.num_positions >= MIN_TRIAL:
                self.serving, self._service = self._none, _Duel()
                self._candidate = None
                return "dropped"
        return verdict

    def _decide(self) -> Verdict:
        if self._candidate is None or self._trial.num_positions < MIN_TRIAL:
            return "waiting"
        if self._trial.lead > 0:
            self.serving, self._candidate = self._candidate, None
            return "promoted"
        self._candidate = None
        return "harmful" if self._trial.is_certainly_lost else "refused"


def _asking(version: Version, neighbours: Neighbours) -> Version:
    if version.neighbours is None:
        return version
    return dataclasses.replace(version, neighbours=neighbours)
