"""Learning while nobody waits: a thread that studies answers between requests.

    an answer begins   `open`      the thread stops within a step, or a part of a pass
    a pass is over     `take`      the target's distributions are noted, 0.1 ms a token
    the last one ends  `close`     the thread may go on: read, judge, learn, offer

The versions that serve change only here, so never while an answer is drafted.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edgespec.errors import Cancelled, EdgeSpecError
from edgespec.learning.online.correction import Floats
from edgespec.learning.online.gate import ALONE
from edgespec.learning.online.history import AdaptationHistory
from edgespec.learning.online.learner import Learner
from edgespec.learning.online.lesson import Distribution
from edgespec.learning.online.reading import MOST_TOKENS, LessonReader, Said
from edgespec.learning.online.version import Version
from edgespec.passes import Kept
from edgespec.reports import Report
from edgespec.types import Completion, CompletionRequest, EncodedPrompt, Prompt

MOST_ANSWERS = 16
"""Answers that wait to be learned from; the oldest go."""

_CUT = 8.0
"""Tokens whose logit is so far below the best one are not noted."""
_MOST_NOTED = 64


class Interruptible(Protocol):
    """What reads for the thread: a context whose pass can be ended."""

    def abort(self) -> None:
        """End the pass under way, or the next one."""
        ...

    def resume(self) -> None:
        """Take back an `abort`."""
        ...


class Student:
    """Implements `edgespec.protocols.Observer`: learns from the answers that it is told of.

    Nothing here fails an answer: what goes wrong is told in one line, and learning ends.
    """

    def __init__(
        self,
        reader: LessonReader,
        learner: Learner,
        context: Interruptible,
        render: Callable[[Prompt], list[int]],
        serve: Callable[[Version], None],
        keeping: AdaptationHistory,
        report: Report,
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
        self._report = report
        self._changed = threading.Condition()
        self._pending: deque[Answered] = deque(maxlen=MOST_ANSWERS)
        self._num_answers = 0  # under way
        self._is_studying = self._is_over = False
        self._thread: threading.Thread | None = None
        self._num_unkept = 0  # answers learned from since the last time that something was kept
        serve(learner.serving)

    def open(self, _request: CompletionRequest, prompt: EncodedPrompt) -> Lesson:
        """An answer begins: what is studied is put aside at once."""
        with self._changed:
            self._num_answers += 1
            self._stop_studying()
        return Lesson(self, prompt.prompt)

    def finish(self, answer: Answered | None) -> None:
        """An answer ended; time to study, unless there are others."""
        with self._changed:
            self._num_answers -= 1
            if answer is not None and not self._is_over:
                self._pending.append(answer)
                self._start()
            self._changed.notify_all()

    def wait(self, timeout_s: float) -> bool:
        """Wait until nothing is left to be studied; False if that takes longer."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._is_over or not (self._pending or self._is_studying), timeout_s
            )

    def close(self) -> None:
        """End the thread and keep what was learned; what was not studied yet is lost."""
        with self._changed:
            self._is_over = True
            self._stop_studying()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            if self._num_unkept:
                self._keep(is_new=False)

    def __enter__(self) -> Student:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _stop_studying(self) -> None:
        """Have the thread stop; called with the lock."""
        if self._is_studying:
            self._context.abort()
            self._changed.wait_for(lambda: not self._is_studying)
            self._context.resume()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="adaptation", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self._is_due)
                if self._is_over:
                    return
                self._is_studying = True
            try:
                self._study(self._pending[0])
            except Cancelled:  # a request came: what was read in part is read again later
                pass
            except (EdgeSpecError, ValueError, MemoryError) as error:
                self._is_over, self._num_unkept = True, 0
                self._report(f"the drafter learns no more in this run: {error}")
            finally:
                with self._changed:
                    self._is_studying = False
                    self._changed.notify_all()

    def _is_due(self) -> bool:
        return self._is_over or (bool(self._pending) and not self._num_answers)

    def _study(self, answer: Answered) -> None:
        """Read an answer, judge the versions by it, learn from it."""
        said = Said(tuple(self._render(answer.prompt)), answer.tokens, answer.told)
        reading = self._reader.read(said, self._learner.gate.versions())
        self._pending.popleft()
        if reading is None:
            return
        way = self._learner.gate.way
        self._keeping.count(reading.hits[ALONE], reading.hits[way])
        verdict = self._learner.judge(reading.hits)
        self._learner.learn(reading.examples, lambda: bool(self._num_answers) or self._is_over)
        self._serve(self._learner.serving)
        self._num_unkept += 1
        if verdict == "promoted" or self._learner.gate.way != way:
            self._keep(is_new=True)

    def _keep(self, *, is_new: bool) -> None:
        self._keeping.keep(self._learner.state(), is_new=is_new)
        self._num_unkept = 0


class Lesson:
    """Implements `edgespec.protocols.Observation`: notes what the target says in one answer."""

    def __init__(self, student: Student, prompt: Prompt) -> None:
        """Use `Student.open`."""
        self._student = student
        self._prompt = prompt
        self._told: list[Distribution] = []

    def take(self, kept: Kept) -> None:
        """Note how likely the target found what it said, and what else."""
        if len(self._told) < MOST_TOKENS:
            self._told.extend(noted(kept.logits(index)) for index in range(len(kept.tokens)))

    def close(self, completion: Completion | None) -> None:
        """The answer ended."""
        tokens = () if completion is None else completion.token_ids[: len(self._told)]
        answer = Answered(self._prompt, tokens, tuple(self._told)) if tokens else None
        self._student.finish(answer)


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """What is to be learned from: a prompt, the tokens said, and their distributions."""

    prompt: Prompt
    tokens: tuple[int, ...]
    told: tuple[Distribution, ...]


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
