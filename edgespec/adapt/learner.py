"""Takes answers one after another: judges the versions by each, learns from it, offers the next.

    answer -> hits of each version -> gate -> replay buffer -> training steps -> candidate -> gate

It has no thread and no clock; whoever calls it decides when (`edgespec.adapt.student`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgespec.adapt.correction import Correction
from edgespec.adapt.examples import Examples
from edgespec.adapt.gate import Gate, Verdict
from edgespec.adapt.replay import Replay
from edgespec.adapt.trainer import Trainer, TrainerState, TrainingOptions


@dataclass(frozen=True, slots=True)
class LearnerOptions:
    """Chosen by measurement, see docs/decisions/0012-online-adaptation.md.

    `num_steps` are taken after each answer, each over `batch` positions; `max_rows` is the most
    rows of the head that a served correction changes.
    """

    training: TrainingOptions = field(default_factory=TrainingOptions)
    num_steps: int = 12
    batch: int = 192
    newest_share: float = 0.5
    capacity: int = 8192
    max_rows: int = 8192


class Learner:
    """A gate, a trainer and what they learn from, for one head.

    `good` is the state of training that the serving correction was made of.
    """

    def __init__(
        self, num_rows: int, num_embedding: int, options: LearnerOptions | None = None
    ) -> None:
        """`num_rows` is the size of the head."""
        options = options or LearnerOptions()
        self._options = options
        self.trainer = Trainer(num_rows, num_embedding, options.training)
        self.gate = Gate(num_embedding)
        self._replay = Replay(options.capacity, options.training.seed)
        self._fresh = self.good = self._offered = self.trainer.state()

    def fits(self, state: TrainerState) -> bool:
        """Whether `state` is of a head and options like these."""
        last = int(state.rows[-1]) if len(state.rows) else -1
        return state.down.shape == self.trainer.down.shape and last < len(self.trainer.bias)

    def resume(self, good: TrainerState) -> None:
        """Serve, and go on from, what was `good` in an earlier run."""
        self.trainer.restore(good)
        self.good = good
        self.gate = Gate(good.down.shape[1], self.trainer.correction(self._options.max_rows))

    @property
    def serving(self) -> Correction:
        """The correction that serves."""
        return self.gate.serving

    def judge(self, hits: NDArray[np.bool_]) -> Verdict:
        """Tell which of `gate.versions()` guessed right on a new text: (3, num_positions).

        A candidate that did harm takes what it was trained from back to where it was good.
        """
        verdict = self.gate.judge(hits)
        if verdict == "promoted":
            self.good = self._offered
        elif verdict == "dropped":
            self.good = self._fresh
        elif verdict == "harmful":
            self._go_back()
        return verdict

    def learn(self, lesson: Examples, stopped: Callable[[], bool]) -> int:
        """Learn from a text that was judged; returns the steps taken before `stopped`."""
        self._replay.add(lesson)
        num_steps = 0
        while len(self._replay) and num_steps < self._options.num_steps and not stopped():
            self.trainer.step(self._replay.draw(self._options.batch, self._options.newest_share))
            num_steps += 1
        if num_steps and not self.gate.has_candidate:
            self._offer()
        return num_steps

    def _offer(self) -> None:
        self._offered = self.trainer.state()
        if not self.gate.offer(self.trainer.correction(self._options.max_rows)):
            self._go_back()

    def _go_back(self) -> None:
        """Train on from what was good, and not from the texts that led elsewhere."""
        self.trainer.restore(self.good)
        self._replay.clear()
