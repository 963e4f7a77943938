"""Medians, intervals and the sign test against scipy, and what must hold of any ratios."""

from __future__ import annotations

import doctest
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from edgespec.bench import statistics
from edgespec.bench.statistics import LEAST, Paired, paired, sign_test, tail_level

RATIOS = st.lists(st.floats(0.2, 5.0), min_size=1, max_size=40)
KNOWN = [1.31, 1.02, 1.47, 0.98, 1.22, 1.75, 1.4, 1.18, 1.09, 1.55, 1.61, 1.28, 1.33, 0.95]


def test_the_examples_hold() -> None:
    assert doctest.testmod(statistics).failed == 0


@pytest.mark.parametrize("num", [6, 9, 14])
def test_the_interval_is_scipys_at_the_levels_of_few_questions(num: int) -> None:
    value = paired(KNOWN[:num])
    assert value.median == np.median(KNOWN[:num])
    known = stats.bootstrap(
        (KNOWN[:num],),
        np.median,
        confidence_level=1 - 2 * tail_level(num),
        method="percentile",
        n_resamples=20_000,
        rng=np.random.default_rng(3),
    ).confidence_interval
    assert value.interval == pytest.approx((known.low, known.high), abs=0.08)
    wide = max(known.high - known.low, 1e-9)
    plain = stats.bootstrap(
        (KNOWN[:num],), np.median, method="percentile", rng=np.random.default_rng(3)
    ).confidence_interval
    assert plain.high - plain.low <= wide, "few questions have the wider interval"


@pytest.mark.parametrize("num", [6, 10, 30, 480])
def test_levels_are_those_of_students_distribution(num: int) -> None:
    known = stats.norm.cdf(-stats.t.ppf(0.975, num - 1) * math.sqrt(num / (num - 1)))
    assert tail_level(num) == pytest.approx(known, rel=0.02)


@given(RATIOS)
def test_the_sign_test_is_scipys(ratios: list[float]) -> None:
    above, below = sum(each > 1 for each in ratios), sum(each < 1 for each in ratios)
    known = stats.binomtest(above, above + below).pvalue if above + below else 1.0
    assert sign_test(ratios) == pytest.approx(known)


@given(RATIOS, st.randoms(use_true_random=False), st.sampled_from([0.25, 2.0, 8.0]))
def test_order_means_nothing_scale_scales_and_the_interval_holds_the_median(
    ratios: list[float], draws: random.Random, factor: float
) -> None:
    value = paired(ratios)
    shuffled = draws.sample(ratios, len(ratios))
    assert paired(shuffled) == value
    scaled = paired([factor * each for each in ratios])
    assert scaled.median == factor * value.median
    if len(ratios) < LEAST:
        assert value.interval is None
        return
    assert value.interval is not None and scaled.interval is not None
    low, high = value.interval
    assert min(ratios) <= low <= value.median <= high <= max(ratios)
    assert scaled.interval == (factor * low, factor * high)


def test_few_questions_have_no_interval_and_none_have_no_median() -> None:
    assert paired([1.5] * (LEAST - 1)).interval is None
    assert paired([1.5] * LEAST) == Paired(1.5, 1.5, 1.5, LEAST, 0.03125)
    nothing = paired([])
    assert math.isnan(nothing.median)
    assert (nothing.interval, nothing.num, nothing.p_value) == (None, 0, 1.0)


def test_intervals_of_eight_questions_hold_the_true_median() -> None:
    """The simulation that the module tells of, in small: 97 of 100 hold it."""
    draws = np.random.default_rng(5)
    held = 0
    for _ in range(200):
        interval = paired(np.exp(draws.normal(0.3, 0.25, 8)).tolist()).interval
        assert interval is not None
        held += interval[0] <= math.exp(0.3) <= interval[1]
    assert held >= 188
