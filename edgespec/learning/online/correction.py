"""What adaptation adds to a drafter's logits: z' = z + B (A h) + b over some rows of its head.

h is the drafter's final hidden state, A reduces it to a few numbers, each row of B weighs them for
one row of the head, b is a bias. Rows that were never learned of are not kept: their logits stay.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Correction:
    """One version of what was learned, to be served; nothing in it changes.

    `rows` are rows of the head, ascending, int32, (num_rows,); `down` is A, (rank, num_embedding);
    `up` is B, (num_rows, rank); `bias` is b, (num_rows,), all float32. Rank may be 0.
    """

    rows: NDArray[np.int32]
    down: Floats
    up: Floats
    bias: Floats

    @staticmethod
    def none(num_embedding: int) -> Correction:
        """A correction that changes nothing."""
        nothing = np.zeros(0, dtype=np.float32)
        down = np.zeros((0, num_embedding), dtype=np.float32)
        return Correction(np.zeros(0, dtype=np.int32), down, nothing.reshape(0, 0), nothing)

    @property
    def is_none(self) -> bool:
        """True if it changes nothing."""
        return not len(self.rows)

    def apply(self, logits: Floats, hidden: Floats) -> Floats:
        """Corrected logits of one position, a new array: (num_head_rows,).

        `logits` are the drafter's own, (num_head_rows,), `hidden` its final hidden state,
        (num_embedding,); both stay as they are.
        """
        corrected = logits.copy()
        if not self.is_none:
            corrected[self.rows] += self.up @ (self.down @ hidden) + self.bias
        return corrected
