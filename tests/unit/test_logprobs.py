"""Log-probabilities against their definition, computed with Python's own floats."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgespec.engine.logprobs import token_logprob

LOGITS = st.lists(st.floats(-80, 80, width=32), min_size=1, max_size=40)


@given(LOGITS, st.data())
def test_they_are_the_logarithm_of_the_softmax(values: list[float], data: st.DataObject) -> None:
    token = data.draw(st.integers(0, len(values) - 1))
    num_top = data.draw(st.integers(0, len(values) + 3))
    result = token_logprob(np.array(values, dtype=np.float32), token, num_top)
    peak = max(values)
    log_total = peak + math.log(math.fsum(math.exp(value - peak) for value in values))
    assert result.token == token
    assert result.logprob == pytest.approx(values[token] - log_total, abs=1e-4)
    assert result.logprob <= 1e-4
    assert len(result.top) == min(num_top, len(values))
    assert len({index for index, _ in result.top}) == len(result.top)
    best = sorted((value - log_total for value in values), reverse=True)[:num_top]
    assert [logprob for _, logprob in result.top] == pytest.approx(best, abs=1e-4)
    for index, logprob in result.top:
        assert logprob == pytest.approx(values[index] - log_total, abs=1e-4)


def test_without_alternatives_only_the_token_is_told() -> None:
    result = token_logprob(np.zeros(4, dtype=np.float32), 2, 0)
    assert result.top == ()
    assert result.logprob == pytest.approx(math.log(0.25))


def test_forbidden_tokens_have_no_chance() -> None:
    logits = np.array([0.0, -np.inf, 0.0], dtype=np.float32)
    assert token_logprob(logits, 1, 2).logprob == -math.inf
    assert token_logprob(logits, 0, 3).top[-1] == (1, -math.inf)


def test_the_logits_are_left_as_they_are() -> None:
    logits = np.array([3.0, 1.0, 2.0], dtype=np.float32)
    logits.flags.writeable = False
    assert [index for index, _ in token_logprob(logits, 1, 3).top] == [0, 2, 1]
