"""The hybrid loss against an independent implementation, and its slope against differences."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from adapt_support import random_examples

from edgespec.learning.online.correction import Floats
from edgespec.learning.online.examples import FLOOR, NO_ROW, Examples
from edgespec.learning.online.loss import LossWeights, hybrid_loss, reverse_kl

WEIGHTS = [
    LossWeights(),
    LossWeights(kl=0.0, runs=1.0, said=1.0),
    LossWeights(kl=0.7, runs=0.2, said=0.3),
]


def plain_loss(corrected: list[float], examples: Examples, place: int, w: LossWeights) -> float:
    """The loss of one position as the paper writes it, number by number."""
    loss, columns = 0.0, range(len(corrected))
    told = [float(value) for value in examples.target_logprobs[place]]
    if examples.is_direct[place]:
        shared = [column for column in columns if not math.isnan(told[column])]
        draft_total = sum(math.exp(corrected[column]) for column in shared)
        target_total = sum(math.exp(max(told[column], FLOOR)) for column in shared)
        for column in shared:
            draft = math.exp(corrected[column]) / draft_total
            target = math.exp(max(told[column], FLOOR)) / target_total
            loss += w.kl * draft * math.log(draft / target)
    truth = int(examples.truth[place])
    if truth != NO_ROW:
        share = w.said if examples.is_direct[place] else w.runs
        total = sum(map(math.exp, corrected)) + math.exp(float(examples.rest[place]))
        loss -= share * math.log(math.exp(corrected[truth]) / total)
    return loss


def moved(examples: Examples, seed: int) -> Floats:
    noise = np.random.default_rng(seed).normal(0, 1, examples.logits.shape)
    return (examples.logits + noise).astype(np.float32)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_loss_is_that_of_the_paper(weights: LossWeights, seed: int) -> None:
    examples = random_examples(seed)
    corrected = moved(examples, seed)
    loss, _ = hybrid_loss(corrected, examples, weights)
    plain = [
        plain_loss([float(value) for value in corrected[place]], examples, place, weights)
        for place in range(len(examples))
    ]
    np.testing.assert_allclose(loss, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_the_slope_is_that_of_differences(weights: LossWeights) -> None:
    examples = random_examples(4, count=10)
    corrected = moved(examples, 4)
    _, slope = hybrid_loss(corrected, examples, weights)
    numbers = [[float(value) for value in row] for row in corrected]
    step = 1e-5
    for place, column in np.ndindex(*corrected.shape):
        above, below = list(numbers[place]), list(numbers[place])
        above[column] += step
        below[column] -= step
        ends = [plain_loss(row, examples, place, weights) for row in (above, below)]
        assert slope[place, column] == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=2e-4)


def test_a_drafter_that_says_the_same_has_no_loss() -> None:
    examples = random_examples(5)
    told = np.where(np.isnan(examples.target_logprobs), 3.0, examples.target_logprobs)
    kl, slope = reverse_kl(told.astype(np.float32), examples.target_logprobs)
    np.testing.assert_allclose(kl, 0, atol=1e-5)
    np.testing.assert_allclose(slope, 0, atol=1e-5)


def test_positions_without_anything_known_teach_nothing() -> None:
    examples = random_examples(6)
    count = len(examples)
    unknown = replace(
        examples,
        target_logprobs=np.full_like(examples.target_logprobs, np.nan),
        truth=np.full(count, NO_ROW, dtype=np.int32),
    )
    loss, slope = hybrid_loss(examples.logits, unknown, LossWeights())
    assert not loss.any()
    assert not slope.any()


def test_huge_logits_stay_numbers() -> None:
    examples = random_examples(7)
    loss, slope = hybrid_loss(moved(examples, 7) * 1e4, examples, LossWeights(1.0, 0.2, 0.2))
    assert np.isfinite(loss).all()
    assert np.isfinite(slope).all()
