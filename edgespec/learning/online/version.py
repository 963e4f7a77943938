"""One version of what a drafter learned: a correction of its head, and neighbours to be asked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgespec.learning.online.correction import Correction, Floats
from edgespec.learning.online.neighbours import Neighbours


@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """What may serve: the correction acts first, then the neighbours, where there are any."""

    correction: Correction
    neighbours: Neighbours | None = None

    @staticmethod
    def none(num_embedding: int) -> Version:
        """The drafter as it is."""
        return Version(Correction.none(num_embedding))

    @property
    def is_none(self) -> bool:
        """True if it changes nothing."""
        return self.correction.is_none and self.neighbours is None

    @property
    def is_finite(self) -> bool:
        """False if any of its weights is no number."""
        arrays = (self.correction.down, self.correction.up, self.correction.bias)
        return all(bool(np.isfinite(array).all()) for array in arrays)

    def apply(self, logits: Floats, hidden: Floats) -> Floats:
        """Logits to be used in place of `logits`, which stay as they are (`Correction.apply`)."""
        if not self.correction.is_none:
            logits = self.correction.apply(logits, hidden)
        return logits if self.neighbours is None else self.neighbours.mix(logits, hidden)
