"""The course of a training: steps, judgements, checkpoints, and a stop at any moment.

The numeric part is behind `Pupil`, so what is kept here needs no torch: which lessons come when,
when it is judged by the guide, which state was the best so far, and when enough is enough. A step
that is interrupted is dropped as a whole, so a state is always that after a number of whole steps,
and a training that goes on ends where one without a break would have ended.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgespec.learning.lessons import Course, Lesson, order_of
from edgespec.learning.lora import Lora

LEAST_STEPS = 10
"""So many steps are between two judgements at least."""

Arrays = Mapping[str, NDArray[np.float32]]
"""A state by name."""


@dataclass(frozen=True, slots=True)
class TuningOptions:
    """What training is tuned to (bench/LOG.md, deeper training).

    A step learns from at least `tokens_a_step` tokens; the rate rises over `num_warm` steps. Where
    it is known what the target held likely, that weighs `soft`, and what it said the rest. What
    serves is the mean over the latest `share_of_mean` of all steps, `most_in_mean` of them at most.
    """

    rank: int = 16
    alpha: float = 16.0
    learning_rate: float = 1e-3
    tokens_a_step: int = 512
    num_warm: int = 10
    most_gradient: float = 1.0
    soft: float = 0.7
    share_of_mean: float = 0.25
    most_in_mean: int = 50


@dataclass(frozen=True, slots=True)
class Judged:
    """Guesses of some lessons: how many of `num_tokens` were right, and the mean surprise, nats.

    The latter is of those tokens that can be guessed at all.
    """

    num_tokens: int
    num_right: int
    nll: float

    @property
    def share(self) -> float:
        """Of the guesses, how many were right."""
        return self.num_right / self.num_tokens if self.num_tokens else 0.0


class Pupil(Protocol):
    """Something that learns from lessons and can tell and take back all that it is."""

    def study(self, lesson: Lesson) -> float:
        """Add up what one lesson teaches; the mean negative log-likelihood of its tokens."""
        ...

    def step(self) -> None:
        """Learn what was added up."""
        ...

    def forget(self) -> None:
        """Drop what was added up."""
        ...

    def judge(self, lessons: Sequence[Lesson]) -> Judged:
        """How well it guesses lessons now; learns nothing."""
        ...

    def state(self) -> Arrays:
        """All that it is, a copy."""
        ...

    def restore(self, arrays: Arrays) -> None:
        """Become what a state tells; raises ValueError if that is of another form."""
        ...

    def adopt(self, lora: Lora) -> None:
        """Begin with what was learned before; raises ValueError if that is of another form."""
        ...

    def lora(self) -> Lora:
        """What it learned."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """When to end: after so many steps in all, so many seconds of this run, or when it is no use.

    The latter: the guide was not guessed better for `patience` judgements. Every `judged_every`
    steps it is judged and a checkpoint is due.
    """

    num_steps: int | None = None
    seconds: float | None = None
    patience: int = 4
    judged_every: int = LEAST_STEPS

    @staticmethod
    def of(
        course: Course,
        options: TuningOptions,
        num_steps: int | None = None,
        seconds: float | None = None,
    ) -> Limits:
        """Those of a course whose guide takes a tenth of the time, or is judged each LEAST_STEPS.

        A judged token costs a third of one that is learned: no way back, and nothing twice.
        """
        num_judged = sum(len(lesson.tokens) for lesson in course.guide)
        every = math.ceil(10 * num_judged / (3 * options.tokens_a_step))
        return Limits(num_steps, seconds, judged_every=max(every, LEAST_STEPS))


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a training is: all that is needed to go on besides the pupil's own state.

    `best` are the guide's figures after the step that guessed it best, `best_lora` what had been
    learned then; `alone` the figures before the first step. `loss` is a running mean.
    """

    num_steps: int = 0
    num_lessons: int = 0
    num_since_best: int = 0
    loss: float = 0.0
    alone: Judged | None = None
    best: Judged | None = None
    best_lora: Lora | None = None


Show = Callable[[Progress, float, bool], None]
"""Told after each step: the share of the limit that is over, and whether the guide was judged."""


@dataclass(frozen=True, slots=True)
class Watcher:
    """Who is told of each step, and keeps what is to be kept."""

    show: Show = lambda _progress, _share, _is_judged: None
    keep: Callable[[Progress, Arrays], None] = lambda _progress, _state: None


class Training:
    """Trains a pupil on a course; what became of it is in `progress`."""

    def __init__(
        self,
        pupil: Pupil,
        course: Course,
        options: TuningOptions,
        clock: Callable[[], float],
        progress: Progress,
    ) -> None:
        """`progress` is that of an earlier run, whose state the pupil has; `clock` in seconds."""
        self.progress = progress
        self._pupil = pupil
        self._course = course
        self.options = options
        self._clock = clock

    def run(self, limits: Limits, watcher: Watcher, is_stopped: Callable[[], bool]) -> bool:
        """Train until a limit; False if it was stopped before. What it is then is kept, too."""
        started = self._clock()
        is_kept = False
        if self.progress.best is None:
            self._judge()
        while (share := self._share(limits, self._clock() - started)) < 1.0:
            if not self._step(is_stopped):
                self._pupil.forget()
                watcher.keep(self.progress, self._pupil.state())
                return False
            is_kept = self.progress.num_steps % limits.judged_every == 0
            if is_kept:
                self._judge()
                watcher.keep(self.progress, self._pupil.state())
            watcher.show(self.progress, share, is_kept)
        if not is_kept:
            self._judge()
            watcher.keep(self.progress, self._pupil.state())
            watcher.show(self.progress, share, True)
        return True

    def _share(self, limits: Limits, seconds: float) -> float:
        """How much of the nearest limit is over."""
        shares = [float(self.progress.num_since_best >= limits.patience)]
        if limits.num_steps is not None:
            shares.append(self.progress.num_steps / limits.num_steps)
        if limits.seconds is not None:
            shares.append(seconds / limits.seconds)
        return max(shares)

    def _step(self, is_stopped: Callable[[], bool]) -> bool:
        """Learn from as many lessons as make a step; False if it was stopped on the way."""
        lessons, number = self._course.lessons, self.progress.num_lessons
        num_tokens, total = 0, 0.0
        while num_tokens < self.options.tokens_a_step:
            if is_stopped():
                return False
            epoch, place = divmod(number, len(lessons))
            lesson = lessons[order_of(len(lessons), epoch)[place]]
            total += self._pupil.study(lesson) * lesson.num_taught
            num_tokens += lesson.num_taught
            number += 1
        self._pupil.step()
        loss, before = total / num_tokens, self.progress
        smooth = loss if not before.num_steps else 0.9 * before.loss + 0.1 * loss
        self.progress = dataclasses.replace(
            before, num_steps=before.num_steps + 1, num_lessons=number, loss=smooth
        )
        return True

    def _judge(self) -> None:
        """See how well the guide is guessed, and remember the state if it was never better."""
        judged, progress = self._pupil.judge(self._course.guide), self.progress
        is_best = progress.best is None or judged.nll < progress.best.nll
        self.progress = dataclasses.replace(
            progress,
            alone=progress.alone or judged,
            num_since_best=0 if is_best else progress.num_since_best + 1,
            best=judged if is_best else progress.best,
            best_lora=self._pupil.lora() if is_best else progress.best_lora,
        )
