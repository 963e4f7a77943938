"""Takes answers one after another: judges the versions by each, learns from it, offers the next.

    answer -> hits of each version -> gate -> replay buffer -> training steps -> candidate -> gate

It has no thread and no clock; whoever calls it decides when (`edgespec.learning.online.student`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgespec.learning.online.correction import Correction
from edgespec.learning.online.datastore import Datastore, DatastoreState
from edgespec.learning.online.examples import NO_ROW, Examples
from edgespec.learning.online.gate import Gate, Verdict
from edgespec.learning.online.replay import Replay
from edgespec.learning.online.trainer import Trainer, TrainerState, TrainingOptions
from edgespec.learning.online.version import Version


@dataclass(frozen=True, slots=True, eq=False)
class LearnerState:
    """What is kept: training at the correction in use, the memory, and the way to serve.

    `way` is one of `edgespec.learning.online.gate`, ALONE to BOTH.
    """

    trainer: TrainerState
    memory: DatastoreState
    way: int


@dataclass(frozen=True, slots=True)
class LearnerOptions:
    """Chosen by measurement, see docs/decisions/0012-online-adaptation.md.

    `num_steps` are taken after each answer, each over `batch` positions; `max_rows` is the most
    rows of the head that a served correction changes. Without `neighbours` none are asked.
    """

    training: TrainingOptions = field(default_factory=TrainingOptions)
    num_steps: int = 2
    batch: int = 256
    newest_share: float = 0.25
    capacity: int = 8192
    max_rows: int = 8192
    neighbours: bool = True


class Learner:
    """A gate, a trainer, a memory and what they learn from, for one head."""

    def __init__(
        self, num_rows: int, num_embedding: int, options: LearnerOptions | None = None
    ) -> None:
        """`num_rows` is the size of the head."""
        options = options or LearnerOptions()
        self._options = options
        self._num_rows, self._num_embedding = num_rows, num_embedding
        self.trainer = Trainer(num_rows, num_embedding, options.training)
        self.memory = Datastore(num_embedding)
        self.gate = Gate(num_embedding)
        self._replay = Replay(options.capacity, options.training.seed)
        self._good = self._offered = self.trainer.state()

    def fits(self, state: LearnerState) -> bool:
        """Whether `state` is of a head and options like these."""
        rows, down = state.trainer.rows, state.trainer.down
        largest = int(rows[-1]) if len(rows) else -1
        is_same = down.shape == self.trainer.down.shape and largest < self._num_rows
        return is_same and state.memory.fits(self._num_embedding, self._num_rows)

    def resume(self, state: LearnerState) -> None:
        """Serve, and go on from, what was kept in an earlier run."""
        self.trainer.restore(state.trainer)
        self._good = state.trainer
        self.memory.restore(state.memory)
        self.gate = Gate(self._num_embedding, self._correction(), state.way)
        self.gate.refresh(self.memory.index())

    def state(self) -> LearnerState:
        """What is to be kept."""
        return LearnerState(self._good, self.memory.state(), self.gate.way)

    @property
    def serving(self) -> Version:
        """The version that serves."""
        return self.gate.serving

    def judge(self, hits: NDArray[np.bool_]) -> Verdict:
        """Tell which of `gate.versions()` guessed right on a new text: (5, num_positions).

        A candidate that did harm takes what it was trained from back to where it was good.
        """
        verdict = self.gate.judge(hits)
        if verdict == "promoted":
            self._good = self._offered
        elif verdict == "harmful":
            self._go_back()
        return verdict

    def learn(self, lesson: Examples, stopped: Callable[[], bool]) -> int:
        """Learn from a text that was judged; returns the steps taken before `stopped`."""
        self._remember(lesson)
        self._replay.add(lesson)
        num_steps = 0
        while len(self._replay) and num_steps < self._options.num_steps and not stopped():
            self.trainer.step(self._replay.draw(self._options.batch, self._options.newest_share))
            num_steps += 1
        if num_steps and not self.gate.has_candidate:
            self._offer()
        return num_steps

    def _remember(self, lesson: Examples) -> None:
        """Make neighbours of what was said; they are asked from the next answer on."""
        if not self._options.neighbours:
            return
        known = np.flatnonzero(lesson.truth != NO_ROW)
        self.memory.add(lesson.hidden[known], lesson.rows[known, lesson.truth[known]])
        self.gate.refresh(self.memory.index())

    def _correction(self) -> Correction:
        return self.trainer.correction(self._options.max_rows)

    def _offer(self) -> None:
        self._offered = self.trainer.state()
        if not self.gate.offer(self._correction()):
            self._go_back()

    def _go_back(self) -> None:
        """Train on from what was good, and not from the texts that led elsewhere."""
        self.trainer.restore(self._good)
        self._replay.clear()
