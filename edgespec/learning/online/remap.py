"""What was learned for one head, for another head of the same model with other rows.

A row of the head stands for a token; what was learned of tokens that both heads have goes along.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from edgespec.learning.online.datastore import DatastoreState
from edgespec.learning.online.learner import LearnerState

_NONE = -1


def moved(state: LearnerState, before: NDArray[np.int32], after: NDArray[np.int32]) -> LearnerState:
    """`state` of a head whose row i is token `before[i]`, for one with `after`; both ascending."""
    places = np.searchsorted(after, before).clip(max=len(after) - 1)
    rows = np.where(after[places] == before, places, _NONE).astype(np.int32)
    trainer, memory = state.trainer, state.memory
    learned = rows[trainer.rows]
    is_here = learned != _NONE
    said = rows[memory.said]
    is_known = said != _NONE
    return LearnerState(
        dataclasses.replace(
            trainer,
            rows=learned[is_here],
            up=trainer.up[is_here],
            bias=trainer.bias[is_here],
            seen_up=trainer.seen_up[is_here],
            seen_bias=trainer.seen_bias[is_here],
        ),
        DatastoreState(memory.mean, memory.down, memory.keys[is_known], said[is_known]),
        state.way,
    )
