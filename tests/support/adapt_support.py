"""Made-up examples for the tests of adaptation: a small head and what a target says of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgespec.learning.online.correction import Floats
from edgespec.learning.online.datastore import Datastore
from edgespec.learning.online.examples import NO_ROW, Examples
from edgespec.learning.online.learner import LearnerState
from edgespec.learning.online.lesson import DirectMap, Distribution, Place, lesson
from edgespec.learning.online.trainer import Trainer, TrainingOptions


def random_examples(seed: int, count: int = 24, num_rows: int = 60, width: int = 12) -> Examples:
    """Examples of both kinds, some without a truth or with columns the target does not know."""
    random = np.random.default_rng(seed)
    num_candidates = 9
    rows = np.stack([random.permutation(num_rows)[:num_candidates] for _ in range(count)])
    logits = random.normal(0, 2, (count, num_candidates)).astype(np.float32)
    logprobs = np.log(random.dirichlet(np.ones(num_candidates), count)).astype(np.float32)
    logprobs[random.random(logprobs.shape) < 0.2] = np.nan
    is_direct = random.random(count) < 0.6
    logprobs[~is_direct] = np.nan
    truth = random.integers(0, num_candidates, count).astype(np.int32)
    truth[~is_direct & (random.random(count) < 0.3)] = NO_ROW
    return Examples(
        hidden=random.normal(0, 3, (count, width)).astype(np.float16),
        rows=rows.astype(np.int32),
        logits=logits - logits.max(axis=1, keepdims=True),
        rest=random.normal(-1, 1, count).astype(np.float32),
        target_logprobs=logprobs,
        truth=truth,
        is_direct=is_direct,
    )


class ShiftedTarget:
    """A drafter's head, and a target that would say what the head says after a known correction.

    Tokens of both are the same numbers, so every position is direct.
    """

    def __init__(self, seed: int, num_rows: int = 80, width: int = 16, rank: int = 2) -> None:
        self.random = np.random.default_rng(seed)
        self.head: Floats = self.random.normal(0, 0.5, (num_rows, width)).astype(np.float32)
        self.bias: Floats = self.random.normal(0, 1.0, num_rows).astype(np.float32)
        up = self.random.normal(0, 1.0, (num_rows, rank))
        self.shift: Floats = (up @ self.random.normal(0, 0.25, (rank, width))).astype(np.float32)
        self.direct = DirectMap.of(np.arange(num_rows, dtype=np.int32), num_rows)

    def text(
        self, count: int, num_candidates: int = 80
    ) -> tuple[Floats, Floats, NDArray[np.int64], Examples]:
        """Hidden states, the drafter's logits, what the target says, and all that as examples."""
        hidden = self.random.normal(0, 1, (count, self.head.shape[1])).astype(np.float32)
        logits = hidden @ self.head.T
        wanted = logits + hidden @ self.shift.T + self.bias
        said = wanted.argmax(axis=1)
        logprobs = wanted - np.log(np.exp(wanted).sum(axis=1, keepdims=True))
        ids = np.arange(len(self.head), dtype=np.int32)
        places = []
        for token, row in zip(said, logprobs, strict=True):
            order = np.argsort(-row)
            told = Distribution(ids[order], row[order].astype(np.float32))
            places.append(Place(int(token), int(token), told))
        examples = lesson(places, list(logits), list(hidden), self.direct, num_candidates)
        assert examples is not None
        return hidden, logits, said, examples


def learned() -> LearnerState:
    """Something learned, of a head of 60 rows and hidden states of 12 numbers."""
    trainer, memory = Trainer(60, 12, TrainingOptions(rank=3)), Datastore(12)
    for seed in range(4):
        trainer.step(random_examples(seed))
    hidden = random_examples(9, count=1100).hidden
    memory.add(hidden, np.arange(1100, dtype=np.int32) % 60)
    return LearnerState(trainer.state(), memory.state(), way=3)
