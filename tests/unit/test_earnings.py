"""What reading can earn: how long answers go on, what drafts gain for each token."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgespec.planning.earnings import LONGEST, Gains, Lengths

# Lengths


def test_an_answer_is_expected_to_go_on_for_about_as_long_as_it_has() -> None:
    lengths = Lengths()
    expected = [lengths.expected(count, 10**6) for count in (1, 30, 100, 300)]
    assert expected == sorted(expected)
    assert 50 < expected[2] < expected[3] <= LONGEST + 1


def test_after_short_answers_a_short_one_is_expected() -> None:
    lengths = Lengths()
    for _ in range(12):
        lengths.observe(24, ended=True)
    assert lengths.expected(1, 10**6) < Lengths().expected(1, 10**6)
    assert lengths.expected(16, 100) < 0.7 * Lengths().expected(16, 100)
    assert lengths.expected(100, 10**6) > 100, "but not of one that is already long"


def test_answers_that_were_cut_say_that_they_go_on() -> None:
    cut, ended = Lengths(), Lengths()
    for _ in range(12):
        cut.observe(100, ended=False)
        ended.observe(100, ended=True)
    assert cut.expected(20, 10**6) > 2 * ended.expected(20, 10**6)


def test_an_answer_of_one_token_says_next_to_nothing() -> None:
    lengths = Lengths()
    before = lengths.expected(1, 1000)
    for _ in range(50):
        lengths.observe(1, ended=False)
    assert lengths.expected(1, 1000) == pytest.approx(before, rel=0.35)


def test_the_last_answers_count_most() -> None:
    lengths = Lengths()
    for _ in range(20):
        lengths.observe(20, ended=True)
    short = lengths.expected(1, 10**6)
    for _ in range(5):
        lengths.observe(400, ended=True)
    assert lengths.expected(1, 10**6) > 1.5 * short


def test_it_comes_near_the_truth_of_answers_that_end_at_a_constant_rate() -> None:
    stream, lengths = random.Random(7), Lengths()
    for _ in range(400):
        lengths.observe(1 + int(stream.expovariate(1 / 80)), ended=True)
    assert lengths.expected(1, 10**6) == pytest.approx(80, rel=0.5)


@given(
    st.lists(st.tuples(st.integers(1, 5000), st.booleans()), max_size=30),
    st.integers(0, 5000),
    st.integers(0, 5000),
)
def test_what_is_expected_is_within_the_limit(
    answers: list[tuple[int, bool]], num_tokens: int, most: int
) -> None:
    lengths = Lengths()
    for count, ended in answers:
        lengths.observe(count, ended=ended)
    expected = lengths.expected(num_tokens, most)
    assert 0 <= expected <= most + 1e-6
    assert expected <= lengths.expected(num_tokens, most + 10) + 1e-9
    assert most < 2 or expected > 0


# Gains


def test_gains_are_learned() -> None:
    gains = Gains()
    first = gains.expected(1.0, 1.0)
    assert first > 0, "any model is tried"
    for _ in range(10):
        gains.observe(1.0, 1.0, -0.1, 100)
        gains.fade()
    assert gains.expected(1.0, 1.0) < 0 < first


def test_long_answers_say_more_than_short_ones() -> None:
    moved = []
    for num_tokens in (2, 20, 200):
        gains = Gains()
        gains.observe(1.0, 1.0, 0.05, num_tokens)
        moved.append(gains.expected(1.0, 1.0))
    assert moved == sorted(moved, reverse=True)


def test_one_outlier_moves_little() -> None:
    one, other = Gains(), Gains()
    one.observe(1.0, 1.0, -0.2, 100)
    other.observe(1.0, 1.0, -50.0, 100)
    assert other.expected(1.0, 1.0) == pytest.approx(one.expected(1.0, 1.0), abs=0.1)


def test_texts_of_which_the_drafter_knows_little_are_told_apart() -> None:
    gains = Gains()
    for _ in range(8):
        for fertility, share in ((1.0, 0.2), (1.4, -0.05)):
            gains.observe(fertility, 1.0, share, 60)
            gains.fade()
    assert gains.expected(1.0, 1.0) > 0.15
    assert gains.expected(1.4, 1.0) < 0.07
    assert gains.expected(2.0, 1.0) < gains.expected(1.4, 1.0)


def test_that_the_drafter_knows_such_texts_after_all_is_learned() -> None:
    gains = Gains()
    for _ in range(10):
        gains.observe(1.5, 1.0, 0.3, 100)
        gains.fade()
    assert gains.expected(1.5, 1.0) > 0.15


def test_long_prompts_in_which_look_ups_draft_are_told_apart() -> None:
    gains = Gains()
    for _ in range(8):
        for num_passes, share in ((0.5, 0.2), (6.0, 0.01)):
            gains.observe(1.0, num_passes, share, 60)
            gains.fade()
    assert gains.expected(1.0, 0.5) > 0.15
    assert gains.expected(1.0, 6.0) < 0.06


def test_what_lost_is_tried_again_in_the_end() -> None:
    gains = Gains()
    for _ in range(30):
        gains.observe(1.0, 1.0, -0.1, 100)
        gains.fade()
    num_answers = 0
    while gains.expected(1.0, 1.0) < 0.05:
        gains.fade()
        num_answers += 1
    assert 5 < num_answers < 60


@given(
    st.lists(
        st.tuples(st.floats(0.2, 8), st.floats(0, 100), st.floats(-1e3, 1e3), st.integers(1, 5000)),
        max_size=60,
    )
)
def test_they_stay_numbers(answers: list[tuple[float, float, float, int]]) -> None:
    gains = Gains()
    for answer in answers:
        gains.observe(*answer)
        gains.fade()
    assert all(math.isfinite(gains.expected(fertility, 2.0)) for fertility in (0.2, 1.0, 8.0))
