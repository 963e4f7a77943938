"""The work behind `edgespec learn corpus`: the target answers prompts of ours, many at a time.

    prompts -> [ as many answers at once as there are slots ] -> what it knew at each token -> files

Importing this loads the native library.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgespec.learning.corpus import Corpus, Said
from edgespec.learning.prompts import Asked
from edgespec.machine.facts import file_fingerprint
from edgespec.paths import Paths
from edgespec.protocols import Answer, Completer
from edgespec.reports import Report, human_bytes
from edgespec.runtime.harvest import Gleaning, Harvester
from edgespec.runtime.request import NO_DRAFTER, LoadRequest
from edgespec.runtime.running import load
from edgespec.types import Completion, CompletionRequest, Message, SamplingParams

LONGEST_ANSWER = 256
"""Tokens; many short answers teach more than few long ones."""

SAMPLINGS = (
    SamplingParams(),
    SamplingParams(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05),
)
"""Prompts are answered in turns with these: drafters serve both."""

_ANSWERS_A_FILE = 48


@dataclass(frozen=True, slots=True)
class CorpusLimits:
    """When to end: after so many tokens in all, bytes on disk, or seconds of this run."""

    num_tokens: int
    num_bytes: int
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class CorpusProgress:
    """How far it is: tokens kept and in memory, and those of this run per second."""

    num_tokens: int
    num_answers: int
    tokens_per_second: float


ShowCorpus = Callable[[CorpusProgress], None]


def make_corpus(
    loading: LoadRequest,
    target: Path,
    prompts: Iterable[Asked],
    limits: CorpusLimits,
    paths: Paths,
    show: ShowCorpus,
    is_stopped: Callable[[], bool],
    report: Report,
) -> str:
    """Answer prompts until a limit, and say what came of it; `loading` tells slots and threads.

    With its `hidden_states` those are kept as well. What is there already is gone on with. Raises
    what loading raises, and StorageError.
    """
    corpus = Corpus(paths.corpora, file_fingerprint(target), target.stem)
    loading = replace(
        loading, drafter=NO_DRAFTER, remember=False, learn=False, idle=False, exact=False
    )
    asking = Asking(corpus, prompts, limits, report)
    harvester = Harvester(asking.gathered, with_states=loading.hidden_states)
    with load(loading, target, paths, report, observers=[harvester]) as running:
        asking.run(running.completer, loading.num_slots, show, is_stopped)
    progress = asking.progress
    return (
        f"{progress.num_tokens:,} tokens in {progress.num_answers:,} answers of {target.stem},"
        f" {human_bytes(corpus.num_bytes)}"
    )


@dataclass(slots=True)
class _Turn:
    """One prompt that is to be answered; `rest` is asked after it."""

    asked: Asked
    messages: tuple[Message, ...]
    rest: tuple[str, ...]

    @property
    def turn(self) -> int:
        return len(self.asked.follow_ups) - len(self.rest)

    def request(self) -> CompletionRequest:
        return CompletionRequest(
            self.messages,
            replace(SAMPLINGS[self.asked.number % len(SAMPLINGS)], seed=self.asked.number),
            max_tokens=LONGEST_ANSWER,
            speculate=False,
            conversation=self.asked.key,
        )

    def after(self, text: str) -> _Turn:
        """What is asked once this was answered."""
        said, more = Message("assistant", text), Message("user", self.rest[0])
        return _Turn(self.asked, (*self.messages, said, more), self.rest[1:])


class Asking:
    """Asks what has not been answered yet, and keeps what is said, some answers at a time."""

    def __init__(
        self,
        corpus: Corpus,
        prompts: Iterable[Asked],
        limits: CorpusLimits,
        report: Report,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """A conversation that was begun is not begun again."""
        known = corpus.known(report)
        begun = {key for key, _turn in known}
        self._corpus = corpus
        self._limits = limits
        self._clock = clock
        self._started = clock()
        self._prompts = (each for each in prompts if each.key not in begun)
        self._next: deque[_Turn] = deque()
        self._open: dict[str, _Turn] = {}
        self._finished: list[Said] = []
        self._num_before = self._num_tokens = sum(known.values())
        self._num_answers = len(known)

    @property
    def progress(self) -> CorpusProgress:
        """How far it is."""
        seconds = max(self._clock() - self._started, 1e-9)
        rate = (self._num_tokens - self._num_before) / seconds
        return CorpusProgress(self._num_tokens, self._num_answers, rate)

    def run(
        self,
        completer: Completer,
        num_asked: int,
        show: ShowCorpus,
        is_stopped: Callable[[], bool],
    ) -> None:
        """Have `num_asked` prompts asked at a time until a limit; what is finished is kept.

        No more than there are slots: what is asked next finds its conversation's slot idle.

        Raises StorageError, and what answers raise.
        """
        answers: deque[Answer] = deque()
        self._started = self._clock()
        try:
            while not is_stopped() and not self._is_enough:
                answers.extend(map(completer.answer, self._asked(num_asked)))
                if not answers:
                    break
                if next(answers[0], None) is None:
                    answers.popleft()
                    show(self.progress)
                if len(self._finished) >= _ANSWERS_A_FILE:
                    self._keep()
        finally:
            for answer in answers:
                answer.close()
            self._keep()

    def gathered(
        self, request: CompletionRequest, completion: Completion, gleaning: Gleaning
    ) -> None:
        """An answer is over: keep it, and ask what comes after it soon."""
        turn = self._open.pop(request.conversation or "")
        if completion.finish_reason == "cancelled":
            return
        self._finished.append(_said(turn, request, completion, gleaning))
        self._num_tokens += len(completion.token_ids)
        self._num_answers += 1
        if turn.rest:
            self._next.append(turn.after(completion.text))

    @property
    def _is_enough(self) -> bool:
        limits = self._limits
        return (
            self._num_tokens >= limits.num_tokens
            or self._corpus.num_bytes >= limits.num_bytes
            or (limits.seconds is not None and self._clock() - self._started >= limits.seconds)
        )

    def _asked(self, count: int) -> Iterator[CompletionRequest]:
        """Requests until so many are open."""
        while len(self._open) < count:
            turn = self._next.popleft() if self._next else self._begun()
            if turn is None:
                return
            request = turn.request()
            self._open[request.conversation or ""] = turn
            yield request

    def _begun(self) -> _Turn | None:
        asked = next(self._prompts, None)
        return None if asked is None else _Turn(asked, asked.messages, asked.follow_ups)

    def _keep(self) -> None:
        finished, self._finished = self._finished, []
        if finished:
            self._corpus.append(finished)


def _said(
    turn: _Turn, request: CompletionRequest, completion: Completion, gleaning: Gleaning
) -> Said:
    return Said(
        turn.asked.key,
        turn.turn,
        turn.asked.kind,
        request.sampling.temperature,
        turn.messages,
        completion.text,
        np.array(completion.token_ids, np.int32),
        gleaning.top,
        gleaning.states,
    )
