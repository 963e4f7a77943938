"""What was learned goes along with the tokens when a head gets other rows."""

from __future__ import annotations

import numpy as np
from adapt_support import learned
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgespec.learning.online.learner import Learner, LearnerOptions
from edgespec.learning.online.remap import moved
from edgespec.learning.online.trainer import TrainingOptions

LEARNED = learned()
"""Of a head of 60 rows."""

NUM_TOKENS = 150
BEFORE = np.arange(0, 120, 2, dtype=np.int32)
heads = st.sets(st.integers(0, NUM_TOKENS - 1), min_size=1, max_size=NUM_TOKENS).map(
    lambda tokens: np.array(sorted(tokens), dtype=np.int32)
)


def by_token(
    rows: NDArray[np.int32], head: NDArray[np.int32], values: NDArray[np.float32]
) -> dict[int, object]:
    return {
        int(head[row]): value.tolist() for row, value in zip(rows.tolist(), values, strict=True)
    }


@given(heads)
def test_tokens_of_both_heads_keep_what_was_learned_of_them(after: NDArray[np.int32]) -> None:
    state = moved(LEARNED, BEFORE, after)
    both = set(BEFORE.tolist()) & set(after.tolist())
    for name in ("up", "bias", "seen_up", "seen_bias"):
        old = by_token(LEARNED.trainer.rows, BEFORE, getattr(LEARNED.trainer, name))
        new = by_token(state.trainer.rows, after, getattr(state.trainer, name))
        assert new == {token: value for token, value in old.items() if token in both}
    assert (np.diff(state.trainer.rows) > 0).all()
    said = BEFORE[LEARNED.memory.said]
    is_known = np.isin(said, after)
    np.testing.assert_array_equal(after[state.memory.said], said[is_known])
    np.testing.assert_array_equal(state.memory.keys, LEARNED.memory.keys[is_known])
    assert state.way == LEARNED.way


@given(heads)
def test_a_learner_of_the_other_head_goes_on_from_it(after: NDArray[np.int32]) -> None:
    options = LearnerOptions(training=TrainingOptions(rank=3))
    learner = Learner(len(after), 12, options)
    state = moved(LEARNED, BEFORE, after)
    assert learner.fits(state)
    learner.resume(state)
    logits, hidden = np.zeros(len(after), np.float32), np.ones(12, np.float32)
    assert np.isfinite(learner.serving.apply(logits, hidden)).all()


def test_there_and_back_nothing_is_lost_of_what_both_have() -> None:
    after = np.arange(0, 150, dtype=np.int32)
    again = moved(moved(LEARNED, BEFORE, after), after, BEFORE)
    np.testing.assert_array_equal(again.trainer.rows, LEARNED.trainer.rows)
    np.testing.assert_array_equal(again.trainer.up, LEARNED.trainer.up)
    np.testing.assert_array_equal(again.memory.said, LEARNED.memory.said)
