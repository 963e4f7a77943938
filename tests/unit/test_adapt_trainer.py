"""Training of a correction: gradients against differences, and a known shift that it must find."""

from __future__ import annotations

import numpy as np
import pytest
from adapt_support import ShiftedTarget, random_examples
from numpy.typing import NDArray

from edgespec.learning.online.correction import Correction
from edgespec.learning.online.examples import Examples
from edgespec.learning.online.loss import LossWeights, hybrid_loss
from edgespec.learning.online.trainer import Trainer, TrainingOptions

Doubles = NDArray[np.float64]
NUM_ROWS, WIDTH = 60, 12
OPTIONS = TrainingOptions(rank=3, weights=LossWeights(kl=1.0, runs=0.2, said=0.1))


def begun(examples: Examples, options: TrainingOptions = OPTIONS) -> Trainer:
    """A trainer somewhere on its way, where no part of the gradient is zero."""
    trainer = Trainer(NUM_ROWS, WIDTH, options)
    random = np.random.default_rng(9)
    trainer.up[:] = random.normal(0, 0.3, trainer.up.shape)
    trainer.bias[:] = random.normal(0, 0.3, trainer.bias.shape)
    trainer.gradient(examples)
    return trainer


def exact_loss(
    trainer: Trainer, down: Doubles, up: Doubles, bias: Doubles, given: Examples
) -> float:
    """Mean loss by plain formulas in float64 up to the logits."""
    lowered = given.hidden.astype(np.float64) / np.float64(np.float32(trainer.scale)) @ down.T
    total = 0.0
    for place in range(len(given)):
        rows = given.rows[place]
        logits = given.logits[place] + up[rows] @ lowered[place] + bias[rows]
        one = given.take(slice(place, place + 1))
        loss, _ = hybrid_loss(logits[None].astype(np.float32), one, trainer.options.weights)
        total += float(loss[0])
    return total / len(given)


@pytest.mark.parametrize("part", ["down", "up", "bias"])
def test_gradients_are_those_of_differences(part: str) -> None:
    examples = random_examples(3, num_rows=NUM_ROWS, width=WIDTH)
    trainer = begun(examples)
    _, gradient = trainer.gradient(examples)
    parts = {
        name: np.array(getattr(trainer, name), dtype=np.float64) for name in ("down", "up", "bias")
    }
    found = np.zeros(parts[part].shape)
    if part == "down":
        found[:] = gradient.down
    else:
        found[gradient.rows] = getattr(gradient, part)
    step = 1e-3
    places = np.random.default_rng(1).permutation(parts[part].size)[:40]
    for place in places:
        index = np.unravel_index(place, parts[part].shape)
        losses = []
        for sign in (1, -1):
            parts[part][index] += sign * step
            losses.append(exact_loss(trainer, parts["down"], parts["up"], parts["bias"], examples))
            parts[part][index] -= sign * step
        assert found[index] == pytest.approx((losses[0] - losses[1]) / (2 * step), abs=4e-4)


def test_what_is_served_is_what_was_trained() -> None:
    examples = random_examples(5, num_rows=NUM_ROWS, width=WIDTH)
    trainer = begun(examples)
    trained = trainer.correct(examples)
    served = trainer.correction(max_rows=NUM_ROWS)
    for place in range(len(examples)):
        logits = np.zeros(NUM_ROWS, dtype=np.float32)
        logits[examples.rows[place]] = examples.logits[place]
        corrected = served.apply(logits, examples.hidden[place].astype(np.float32))
        np.testing.assert_allclose(
            corrected[examples.rows[place]], trained[place], rtol=1e-4, atol=1e-4
        )


def test_only_the_heaviest_rows_are_served() -> None:
    examples = random_examples(6, num_rows=NUM_ROWS, width=WIDTH)
    trainer = begun(examples)
    few = trainer.correction(max_rows=7)
    weight = np.abs(trainer.bias) + np.linalg.norm(trainer.up, axis=1)
    assert few.rows.tolist() == sorted(np.argsort(-weight)[:7].tolist())
    assert len(few.bias) == len(few.up) == 7


def test_an_untrained_correction_changes_nothing() -> None:
    trainer = Trainer(NUM_ROWS, WIDTH, OPTIONS)
    correction = trainer.correction(max_rows=NUM_ROWS)
    logits = np.arange(NUM_ROWS, dtype=np.float32)
    assert correction.is_none
    np.testing.assert_array_equal(correction.apply(logits, np.ones(WIDTH, np.float32)), logits)


def test_serving_leaves_the_logits_alone() -> None:
    examples = random_examples(6, num_rows=NUM_ROWS, width=WIDTH)
    logits = np.zeros(NUM_ROWS, dtype=np.float32)
    logits.flags.writeable = False  # as llama.cpp's own buffer is
    corrected = begun(examples).correction(NUM_ROWS).apply(logits, np.ones(WIDTH, np.float32))
    assert corrected.any()
    assert not logits.any()


def agreement(correction: Correction, target: ShiftedTarget, count: int = 400) -> tuple[int, int]:
    """Of so many new positions, where the drafter says what the target does: before and after."""
    hidden, logits, said, _ = target.text(count)
    before = int((logits.argmax(axis=1) == said).sum())
    corrected = [correction.apply(row, state) for row, state in zip(logits, hidden, strict=True)]
    return before, sum(
        int(row.argmax() == token) for row, token in zip(corrected, said, strict=True)
    )


@pytest.mark.parametrize(
    ("weights", "least"), [(LossWeights(), 320), (LossWeights(kl=0.0, runs=1.0, said=1.0), 270)]
)
def test_a_known_shift_is_recovered(weights: LossWeights, least: int) -> None:
    target = ShiftedTarget(seed=2)
    options = TrainingOptions(
        rank=4, rate_bias=0.3, rate_up=0.3, rate_down=0.05, weights=weights, damping=0.0
    )
    trainer = Trainer(80, 16, options)
    *_, examples = target.text(3000)
    random = np.random.default_rng(3)
    for _ in range(500):
        trainer.step(examples.take(random.integers(0, len(examples), 128)))
    correction = trainer.correction(max_rows=80)
    before, after = agreement(correction, target)
    assert before < 200
    assert after > least
    bias = np.zeros(80)
    bias[correction.rows] = correction.bias
    assert np.corrcoef(bias, target.bias)[0, 1] > 0.9


def test_a_bias_alone_recovers_a_bias() -> None:
    target = ShiftedTarget(seed=5)
    target.shift[:] = 0
    trainer = Trainer(
        80, 16, TrainingOptions(rank=0, rate_bias=0.3, damping=0.0, weights=LossWeights())
    )
    *_, examples = target.text(2000)
    random = np.random.default_rng(3)
    for _ in range(200):
        trainer.step(examples.take(random.integers(0, len(examples), 128)))
    before, after = agreement(trainer.correction(max_rows=80), target)
    assert before < 250
    assert after > 360


def test_training_goes_on_from_a_state_as_if_never_interrupted() -> None:
    examples = random_examples(8, count=60, num_rows=NUM_ROWS, width=WIDTH)
    whole, other = Trainer(NUM_ROWS, WIDTH, OPTIONS), Trainer(NUM_ROWS, WIDTH, OPTIONS)
    for _ in range(5):
        whole.step(examples)
    state = whole.state()
    other.step(random_examples(11, num_rows=NUM_ROWS, width=WIDTH))
    other.restore(state)
    for trainer in (whole, other):
        for _ in range(5):
            trainer.step(examples)
    for part in ("down", "up", "bias"):
        np.testing.assert_array_equal(getattr(whole, part), getattr(other, part))


def test_a_state_is_a_copy() -> None:
    examples = random_examples(8, num_rows=NUM_ROWS, width=WIDTH)
    trainer = Trainer(NUM_ROWS, WIDTH, OPTIONS)
    trainer.step(examples)
    state = trainer.state()
    kept = state.down.copy(), state.up.copy(), state.seen_bias.copy()
    trainer.step(examples)
    for before, after in zip(kept, (state.down, state.up, state.seen_bias), strict=True):
        np.testing.assert_array_equal(before, after)
