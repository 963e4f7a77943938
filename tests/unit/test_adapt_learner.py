"""Learning from one answer after another, with the gate in between."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from adapt_support import ShiftedTarget, random_examples
from numpy.typing import NDArray

from edgespec.learning.online.correction import Floats
from edgespec.learning.online.examples import Examples
from edgespec.learning.online.gate import ALONE, CANDIDATE, CORRECTED
from edgespec.learning.online.learner import Learner, LearnerOptions
from edgespec.learning.online.loss import LossWeights
from edgespec.learning.online.replay import Replay
from edgespec.learning.online.trainer import TrainingOptions

FAST = LearnerOptions(
    TrainingOptions(
        rank=4,
        rate_bias=0.2,
        rate_up=0.2,
        rate_down=0.05,
        damping=0.0,
        weights=LossWeights(),
    ),
    num_steps=12,
    batch=192,
    newest_share=0.5,
)


def hits(
    learner: Learner, logits: Floats, hidden: Floats, said: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Which versions would have guessed what was said."""
    return np.array(
        [
            [
                version.apply(*given).argmax() == token
                for *given, token in zip(logits, hidden, said, strict=True)
            ]
            for version in learner.gate.versions()
        ]
    )


def answer(
    learner: Learner, target: ShiftedTarget, count: int = 100
) -> tuple[str, NDArray[np.bool_]]:
    """One answer of the target, judged and learned from."""
    hidden, logits, said, examples = target.text(count)
    found = hits(learner, logits, hidden, said)
    verdict = learner.judge(found)
    learner.learn(examples, lambda: False)
    return verdict, found


def test_guesses_become_better_and_never_serve_untried() -> None:
    learner, target = Learner(80, 16, FAST), ShiftedTarget(seed=2)
    first, _ = answer(learner, target)
    assert first == "waiting"
    assert learner.serving.is_none
    shares = []
    for _ in range(30):
        way = learner.gate.way
        found = answer(learner, target)[1].mean(axis=1)
        shares.append((found[ALONE], found[way]))
    alone, served = np.mean(shares[-10:], axis=0)
    assert served > alone + 0.2


def poisoned(examples: Examples) -> Examples:
    """The same positions, with something else said at each, and surely."""
    truth = np.full(len(examples), examples.rows.shape[1] - 1, dtype=np.int32)
    return replace(examples, truth=truth, is_direct=np.zeros(len(examples), dtype=np.bool_))


def test_a_poisoned_update_is_refused_and_taken_back() -> None:
    learner, target = Learner(80, 16, FAST), ShiftedTarget(seed=2)
    for _ in range(30):
        answer(learner, target)
    for _ in range(3):  # whatever was on trial is judged
        hidden, logits, said, examples = target.text(100)
        learner.judge(hits(learner, logits, hidden, said))
    served = learner.gate.correction
    good = learner.trainer.correct(examples)
    assert not served.is_none
    assert not learner.gate.has_candidate
    for _ in range(20):
        learner.learn(poisoned(examples), lambda: False)
    assert np.abs(learner.trainer.correct(examples) - good).max() > 0.5
    learner.gate.offer(learner.trainer.correction(80))
    hidden, logits, said, _ = target.text(200)
    assert learner.judge(hits(learner, logits, hidden, said)) == "harmful"
    assert learner.gate.correction is served
    # what it is trained on from is that of the last version that was found to be good
    after = [hits(learner, logits, hidden, said)[CORRECTED].mean()]
    learner.gate.offer(learner.trainer.correction(80))
    after.append(hits(learner, logits, hidden, said)[CANDIDATE].mean())
    assert after[1] > after[0] - 0.1


def test_weights_that_are_no_numbers_are_taken_back() -> None:
    learner, target = Learner(80, 16, FAST), ShiftedTarget(seed=2)
    learner.trainer.bias[:] = np.nan
    learner.learn(target.text(50)[3], lambda: False)
    assert not learner.gate.has_candidate
    assert not learner.trainer.bias.any()


def test_it_stops_when_told() -> None:
    learner, target = Learner(80, 16, FAST), ShiftedTarget(seed=2)
    asked = iter([False, False, True])
    assert learner.learn(target.text(50)[3], lambda: next(asked)) == 2
    assert learner.learn(target.text(50)[3], lambda: True) == 0


def test_a_promoted_version_is_what_can_be_saved() -> None:
    learner, target = Learner(80, 16, FAST), ShiftedTarget(seed=2)
    while answer(learner, target)[0] != "promoted":
        pass
    other = Learner(80, 16, FAST)
    other.resume(learner.state())
    hidden, logits, said, _ = target.text(50)
    assert other.gate.way == learner.gate.way
    for way in range(CANDIDATE):
        np.testing.assert_array_equal(
            hits(other, logits, hidden, said)[way], hits(learner, logits, hidden, said)[way]
        )


@pytest.mark.parametrize("capacity", [1, 10, 35])
def test_the_replay_keeps_the_latest(capacity: int) -> None:
    replay = Replay(capacity, seed=1)
    texts = [random_examples(seed, count=12) for seed in range(4)]
    for text in texts:
        replay.add(text)
    assert len(replay) == capacity
    known = {row.tobytes() for text in texts for row in text.hidden}
    latest = {row.tobytes() for row in Examples.joined(texts).hidden[-capacity:]}
    drawn = {row.tobytes() for row in replay.draw(400, 0.5).hidden}
    assert drawn <= latest <= known
    assert len(drawn) > capacity / 2


def test_the_newest_text_is_drawn_more_often() -> None:
    replay = Replay(1000, seed=1)
    old, new = random_examples(1, count=300), random_examples(2, count=20)
    replay.add(old)
    replay.add(new)
    replay.add(new.take(slice(0, 0)))
    newest = {row.tobytes() for row in new.hidden}
    drawn = [row.tobytes() in newest for row in replay.draw(200, 0.5).hidden]
    assert 100 <= sum(drawn) < 130
