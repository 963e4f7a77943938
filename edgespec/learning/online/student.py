"""Learning while nobody waits: what the target said is noted, and studied between answers.

    a pass is over     `Lesson.take`   the target's distributions are noted, 0.1 ms a token
    an answer ends     `Lesson.close`  it waits to be studied
    nobody waits       `run`           read, judge, learn, offer: an answer a step

The versions that serve change only in `run`, so never while an answer is drafted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgespec.errors import Cancelled
from edgespec.learning.online.correction import Floats
from edgespec.learning.online.gate import ALONE
from edgespec.learning.online.history import AdaptationHistory
from edgespec.learning.online.learner import Learner
from edgespec.learning.online.lesson import Distribution
from edgespec.learning.online.reading import MOST_TOKENS, AnswerText, LessonReader
from edgespec.learning.online.version import Version
from edgespec.passes import Kept
from edgespec.pauses import Abortable, Pause
from edgespec.types import Completion, CompletionRequest, EncodedPrompt, Prompt

MOST_ANSWERS = 16
"""Answers that wait to be learned from; the oldest go."""

_CUT = 8.0
"""Tokens whose logit is so far below the best one are not noted."""
_MOST_NOTED = 64


class Student:
    """Implements `edgespec.protocols.Observer`, and a task for idle time: learns from answers."""

    name = "the drafter learns"

    def __init__(
        self,
        reader: LessonReader,
        learner: Learner,
        context: Abortable,
        render: Callable[[Prompt], list[int]],
        serve: Callable[[Version], None],
        keeping: AdaptationHistory,
    ) -> None:
        """`context` is what `reader` reads with; `render` gives a prompt's drafter tokens.

        `serve` is told what is to correct the drafter from the next answer on.
        """
        self._reader = reader
        self._learner = learner
        self._context = context
        self._render = render
        self._serve = serve
        self._keeping = keeping
        self._pending: deque[Answered] = deque(maxlen=MOST_ANSWERS)
        self._num_unkept = 0  # answers learned from since the last time that something was kept
        serve(learner.serving)

    def open(self, _request: CompletionRequest, prompt: EncodedPrompt) -> Lesson:
        """An answer begins, to be noted."""
        return Lesson(prompt.prompt, self._pending)

    def run(self, pause: Pause) -> bool:
        """Study the answer that waits for longest; True if there are more.

        Raises Cancelled, after which what was read in part is read again, EdgeSpecError, ValueError
        or MemoryError.
        """
        pause()
        if self._pending:
            try:
                self._study(self._pending[0], pause)
            except Cancelled:
                raise
            except BaseException:  # nothing of it is kept
                self._pending.clear()
                self._num_unkept = 0
                raise
        return bool(self._pending)

    def close(self) -> None:
        """Keep what was learned; what was not studied yet is lost."""
        if self._num_unkept:
            self._keep(is_new=False)

    def __enter__(self) -> Student:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _study(self, answer: Answered, pause: Pause) -> None:
        """Read an answer, judge the versions by it, learn from it."""
        said = AnswerText(tuple(self._render(answer.prompt)), answer.tokens, answer.told)
        with pause.aborting(self._context):
            reading = self._reader.read(said, self._learner.gate.versions())
        self._pending.popleft()
        if reading is None:
            return
        way = self._learner.gate.way
        self._keeping.count(reading.hits[ALONE], reading.hits[way])
        verdict = self._learner.judge(reading.hits)
        self._learner.learn(reading.examples, lambda: _is_asked(pause))
        self._serve(self._learner.serving)
        self._num_unkept += 1
        if verdict == "promoted" or self._learner.gate.way != way:
            self._keep(is_new=True)

    def _keep(self, *, is_new: bool) -> None:
        self._keeping.keep(self._learner.state(), is_new=is_new)
        self._num_unkept = 0


class Lesson:
    """Implements `edgespec.protocols.Observation`: notes what the target says in one answer."""

    def __init__(self, prompt: Prompt, pending: deque[Answered]) -> None:
        """Use `Student.open`; `pending` gets what is to be learned from."""
        self._prompt = prompt
        self._pending = pending
        self._told: list[Distribution] = []

    def take(self, kept: Kept) -> None:
        """Note how likely the target found what it said, and what else."""
        if len(self._told) < MOST_TOKENS:
            self._told.extend(noted(kept.logits(index)) for index in range(len(kept.tokens)))

    def close(self, completion: Completion | None) -> None:
        """The answer ended."""
        tokens = () if completion is None else completion.token_ids[: len(self._told)]
        if tokens:
            self._pending.append(Answered(self._prompt, tokens, tuple(self._told)))


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """What is to be learned from: a prompt, the tokens said, and their distributions."""

    prompt: Prompt
    tokens: tuple[int, ...]
    told: tuple[Distribution, ...]


def _is_asked(pause: Pause) -> bool:
    """Whether the work is to end."""
    try:
        pause()
    except Cancelled:
        return True
    return False


def noted(logits: Floats) -> Distribution:
    """The target's likeliest tokens at one row, normalized over these: 0.1 ms for 150,000."""
    near = np.flatnonzero(logits > logits.max() - _CUT)
    values = logits[near]
    if len(near) > _MOST_NOTED:
        most = np.argpartition(-values, _MOST_NOTED)[:_MOST_NOTED]
        near, values = near[most], values[most]
    order = np.argsort(-values)
    values = values[order]
    total = np.log(np.exp(values - values[0]).sum()) + values[0]
    return Distribution(near[order].astype(np.int32), (values - total).astype(np.float32))
