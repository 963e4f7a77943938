"""Rows for what was read but not kept: which tokens have one, what they score, who makes room."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgespec.llama.spare_rows import MOST_ROWS, SpareRows

NUM_TOKENS, WIDTH = 900, 6
HEAD = np.random.default_rng(1).normal(0, 1, (NUM_TOKENS, WIDTH)).astype(np.float32)
KEPT = np.arange(0, NUM_TOKENS, 3, dtype=np.int32)
HIDDEN = np.random.default_rng(2).normal(0, 1, WIDTH).astype(np.float32)


class Head:
    """A whole head, and which rows were asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def rows(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        self.asked.extend(tokens)
        return HEAD[list(tokens)]


def scores(spare: SpareRows) -> dict[int, float]:
    logits = spare.logits(HIDDEN)
    assert len(logits) == len(spare)
    return {spare.token(place): float(logit) for place, logit in enumerate(logits)}


@given(st.lists(st.lists(st.integers(0, NUM_TOKENS - 1), max_size=400), max_size=5))
def test_the_tokens_read_last_have_their_logits(reads: list[list[int]]) -> None:
    spare = SpareRows(Head().rows, KEPT, NUM_TOKENS)
    lacking: list[int] = []
    for tokens in reads:
        spare.note(tokens)
        for token in tokens:
            if token % 3:
                lacking = [other for other in lacking if other != token] + [token]
    expected = lacking[-MOST_ROWS:]
    found = scores(spare)
    assert set(found) == set(expected)
    for token, logit in found.items():
        assert np.isclose(logit, HEAD[token] @ HIDDEN, atol=1e-5)


def test_a_row_is_taken_once() -> None:
    head = Head()
    spare = SpareRows(head.rows, KEPT, NUM_TOKENS)
    head.asked.clear()
    spare.note([1, 2, 3, 1])
    spare.note([2, 6, 1])
    assert sorted(head.asked) == [1, 2]
    assert len(spare) == 2


def test_what_was_kept_needs_no_row() -> None:
    spare = SpareRows(Head().rows, KEPT, NUM_TOKENS)
    spare.note(KEPT.tolist())
    spare.note([])
    assert len(spare) == 0
    assert spare.logits(HIDDEN).shape == (0,)
