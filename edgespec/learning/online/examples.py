"""What the drafter learns from: positions of text that the target said, in columns.

Of a head with tens of thousands of rows only the likely ones are kept of each position, with the
mass of all the rest, so that a position takes about two kilobytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from edgespec.learning.online.correction import Floats

NUM_CANDIDATES = 48
"""Rows of the head kept of a position."""

FLOOR = -12.0
"""Log-probability of what the target did not find worth telling of."""

NO_ROW = -1
"""In `Examples.truth`: what was said is not among the candidates."""


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Positions of text, one a row of each array.

    hidden           (n, num_embedding) float16, the drafter's final hidden states
    rows             (n, k) int32, candidates: rows of the head, each once
    logits           (n, k) float32, the drafter's own for them, less the largest of the position
    rest             (n,) float32, log of the summed exp(logits) of all other rows
    target_logprobs  (n, k) float32, the target's for the token of the same bytes; NaN without one
    truth            (n,) int32, the column of what was said, or NO_ROW
    is_direct        (n,) bool, whether the target's distribution is known here and what it said is
                     one token of the drafter's; else only `truth` is, and `target_logprobs` is NaN
    """

    hidden: NDArray[np.float16]
    rows: NDArray[np.int32]
    logits: Floats
    rest: Floats
    target_logprobs: Floats
    truth: NDArray[np.int32]
    is_direct: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.truth)

    def take(self, places: NDArray[np.int64] | slice) -> Examples:
        """Some of them, in the order of `places`."""
        return Examples(*(getattr(self, field.name)[places] for field in fields(self)))

    @staticmethod
    def joined(parts: Sequence[Examples]) -> Examples:
        """All positions of `parts`, at least one, in order."""
        columns = (
            np.concatenate([getattr(part, field.name) for part in parts])
            for field in fields(Examples)
        )
        return Examples(*columns)


def candidates(logits: Floats, wanted: NDArray[np.int32], count: int) -> NDArray[np.int32]:
    """`count` rows of the head for one position: those of `wanted`, then the likeliest others.

    `logits` is (num_head_rows,); what is wanted beyond `count` is left out.
    """
    first = wanted[:count]
    likely = np.argpartition(logits, -count)[-count:]
    likely = likely[np.argsort(-logits[likely])]
    others = likely[~np.isin(likely, first)][: count - len(first)]
    return np.concatenate([first, others]).astype(np.int32)
