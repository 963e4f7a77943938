"""What drafts are worth: heads inside of a head, and the speed to expect, against plain sums."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgespec.forms.weighing import (
    USUAL_PASS_MS,
    Heads,
    Readings,
    expected_speed,
    samples,
    steady_speed,
)

FLAT = {1: 10.0, 8: 10.0}


def readings(hits: list[bool], sureness: float = 0.9) -> Readings:
    return Readings(np.array(hits), np.full(len(hits), sureness, dtype=np.float32))


@given(
    st.integers(0, 1 << 32),
    st.lists(st.integers(1, 40), min_size=1, max_size=5, unique=True),
)
def test_each_head_is_the_softmax_over_its_rows(seed: int, sizes: list[int]) -> None:
    rng = np.random.default_rng(seed)
    order = rng.permutation(40)
    logits = np.round(rng.normal(0, 3, 40), 1).astype(np.float32)
    rows, sureness = Heads(order, tuple(sorted(sizes))).best(logits)
    for size, row, probability in zip(sorted(sizes), rows, sureness, strict=True):
        values = logits[order[:size]].astype(np.float64)
        assert logits[row] == values.max()
        assert row in order[:size]
        expected = 1.0 / np.exp(values - values.max()).sum()
        assert probability == pytest.approx(expected, rel=1e-4)


def test_free_guesses_that_are_right_make_a_pass_as_long_as_it_may_be() -> None:
    speed = expected_speed([readings([True] * 800)], 0.0, FLAT)
    assert speed == pytest.approx(8.0, rel=0.01)


def test_guesses_cost_what_they_cost() -> None:
    # A pass of eight costs 10 ms and seven guesses of 2 ms: 8 tokens in 24 ms against 80 ms.
    speed = expected_speed([readings([True] * 800, 0.99)], 2.0, FLAT)
    assert speed == pytest.approx(80 / 24, rel=0.02)
    assert expected_speed([readings([True] * 800)], 1000.0, FLAT) == 1.0


def test_wrong_guesses_are_soon_no_longer_drafted() -> None:
    assert expected_speed([readings([False] * 400)], 1.0, FLAT) == 1.0
    assert expected_speed([], 1.0) == 1.0


def test_sureness_tells_where_to_draft() -> None:
    rng = np.random.default_rng(0)
    sure = rng.random(2000) < 0.5
    hits = np.where(sure, rng.random(2000) < 0.95, rng.random(2000) < 0.1)
    telling = Readings(hits, np.where(sure, 0.99, 0.1).astype(np.float32))
    silent = Readings(hits, np.full(2000, 0.5, dtype=np.float32))
    assert expected_speed([telling], 3.0) > 1.05 * expected_speed([silent], 3.0)


@given(st.integers(0, 1 << 32), st.floats(0, 20), st.floats(0, 20))
def test_cheaper_guesses_are_never_worse_but_for_chance(seed: int, one: float, two: float) -> None:
    rng = np.random.default_rng(seed)
    sureness = rng.random(300).astype(np.float32)
    text = Readings(rng.random(300) < sureness, sureness)
    cheap, dear = sorted((one, two))
    assert expected_speed([text], cheap) >= 0.93 * expected_speed([text], dear)


def test_better_heads_are_worth_more() -> None:
    rng = np.random.default_rng(1)
    draws, sureness = rng.random(3000), np.full(3000, 0.8, dtype=np.float32)
    speeds = [
        expected_speed([Readings(draws < share, sureness)], 3.0) for share in (0.5, 0.65, 0.8, 0.95)
    ]
    assert speeds == sorted(speeds)
    assert speeds[-1] > 1.5


def test_the_usual_target_is_one_that_drafting_helps() -> None:
    rows = sorted(USUAL_PASS_MS)
    assert rows[0] == 1
    assert [USUAL_PASS_MS[row] for row in rows] == sorted(USUAL_PASS_MS.values())
    assert USUAL_PASS_MS[8] < 4 * USUAL_PASS_MS[1]


def test_samples_are_there() -> None:
    assert len(samples()) == 16
    assert all(prompt and answer for prompt, answer in samples())


def test_steady_guesses_are_worth_what_they_add() -> None:
    assert steady_speed(0.5, 5.0, {1: 30.0, 2: 35.0}) == pytest.approx(1.5 * 30 / 40)
    assert steady_speed(0.8, 0.0, FLAT) > steady_speed(0.6, 0.0, FLAT) > 1.0
    assert steady_speed(0.0, 1.0, FLAT) < 1.0
    assert steady_speed(0.9, 1.0, {1: 30.0}) == 0.0  # nothing can be verified


def test_a_drafter_that_is_as_sure_everywhere_is_worth_the_same_either_way() -> None:
    draws = np.random.default_rng(5).random(20_000)
    texts = [Readings(draws < 0.7, np.full(len(draws), 0.7, dtype=np.float32))]
    assert expected_speed(texts, 3.0) == pytest.approx(steady_speed(0.7, 3.0), rel=0.02)
