"""Paired runs: each prompt with and without speculation, one after the other, in one process.

The prompt is prefilled once and both runs start from the same cache, so that their token ids can be
compared and only decoding is timed. Which of the two goes first alternates, because machines drift.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from edgespec.bench.suite import Question
from edgespec.errors import ContextOverflowError
from edgespec.protocols import Answer, Completer
from edgespec.types import (
    Completion,
    CompletionRequest,
    Insight,
    Message,
    SamplingParams,
    ServedModel,
    SpeculationStats,
)


@dataclass(frozen=True, slots=True)
class Run:
    """Decoding all turns of one question one way, without first tokens, which prefill gives."""

    num_tokens: int
    decode_s: float
    passes: int
    emitted: int
    proposed: int
    accepted: int

    @property
    def tokens_per_second(self) -> float:
        """Decoded tokens per second; 0 for answers of one token."""
        return self.num_tokens / self.decode_s if self.decode_s > 0 else 0.0


class Stoppable:
    """A completer whose answers, the one under way and all that follow, can be ended at once."""

    def __init__(self, completer: Completer) -> None:
        """Everything but `stop` is left to `completer`."""
        self._completer = completer
        self._lock = threading.Lock()
        self._latest: Answer | None = None
        self._is_stopped = False

    @property
    def model(self) -> ServedModel:
        """The loaded target and how it is served."""
        return self._completer.model

    def answer(self, request: CompletionRequest) -> Answer:
        """The handle of an answer to `request`, cancelled if it comes after `stop`."""
        with self._lock:
            self._latest = self._completer.answer(request)
            if self._is_stopped:
                self._latest.cancel()
            return self._latest

    def stop(self) -> None:
        """Cancel the answer under way and those to come; from any thread."""
        with self._lock:
            self._is_stopped = True
            if self._latest is not None:
                self._latest.cancel()

    def count_tokens(self, text: Sequence[Message] | str) -> int:
        """Tokens that a conversation takes in the context, template included, or a plain text."""
        return self._completer.count_tokens(text)

    def insight(self) -> Insight:
        """What is known now of speed here."""
        return self._completer.insight()

    def decode_token(self, token: int) -> bytes:
        """The bytes of one token id."""
        return self._completer.decode_token(token)


Way = Callable[[CompletionRequest], Completion]
"""One of the two ways to answer that are compared."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One question both ways; `identical` tells whether all token ids were equal.

    `plain` is what `speculative` is compared with.
    """

    question: Question
    plain: Run
    speculative: Run
    identical: bool
    num_prompt_tokens: int


def run_suite(
    completer: Completer, questions: Sequence[Question], sampling: SamplingParams, max_tokens: int
) -> Iterator[Pair]:
    """Measure each question in turn; those that do not fit the context are left out."""
    ways = (plainly(completer), drafted(completer))
    yield from run_ways(completer, ways, questions, sampling, max_tokens)


def run_ways(
    completer: Completer,
    ways: tuple[Way, Way],
    questions: Sequence[Question],
    sampling: SamplingParams,
    max_tokens: int,
) -> Iterator[Pair]:
    """As `run_suite`, for any two ways to answer."""
    for index, question in enumerate(questions):
        try:
            yield _run_question(
                completer, ways, question, sampling, max_tokens, plain_first=index % 2 == 0
            )
        except ContextOverflowError:
            continue


def plainly(completer: Completer) -> Way:
    """Answer one token a pass."""
    return lambda request: complete(completer, dataclasses.replace(request, speculate=False))


def drafted(completer: Completer) -> Way:
    """Answer with speculation."""
    return lambda request: complete(completer, dataclasses.replace(request, speculate=True))


def _run_question(
    completer: Completer,
    ways: tuple[Way, Way],
    question: Question,
    sampling: SamplingParams,
    max_tokens: int,
    *,
    plain_first: bool,
) -> Pair:
    answers: tuple[list[Completion], list[Completion]] = ([], [])
    messages: list[Message] = []
    for turn in question.turns:
        messages.append(Message("user", turn))
        request = question.request(messages, sampling, max_tokens)
        complete(completer, dataclasses.replace(request, max_tokens=1, speculate=False))
        for way in (0, 1) if plain_first else (1, 0):
            answers[way].append(ways[way](request))
        messages.append(Message("assistant", answers[0][-1].text))
    plain, speculative = answers
    return Pair(
        question,
        _run(plain),
        _run(speculative),
        [answer.token_ids for answer in plain] == [answer.token_ids for answer in speculative],
        sum(answer.timings.num_prompt_tokens for answer in plain),
    )


def complete(completer: Completer, request: CompletionRequest) -> Completion:
    """The completion of a request, its chunks not shown."""
    return completion_of(completer.answer(request))


def completion_of(answer: Answer) -> Completion:
    """What an answer comes to, its chunks not shown."""
    completion = None
    for chunk in answer:
        completion = chunk.completion
    assert completion is not None, "an answer ends with its completion"
    return completion


def _run(answers: Sequence[Completion]) -> Run:
    stats: list[SpeculationStats] = [answer.stats for answer in answers]
    return Run(
        num_tokens=sum(max(answer.timings.num_decoded_tokens - 1, 0) for answer in answers),
        decode_s=sum(answer.timings.decode_ms for answer in answers) / 1e3,
        passes=sum(stat.target_passes for stat in stats),
        emitted=sum(stat.emitted for stat in stats),
        proposed=sum(stat.proposed for stat in stats),
        accepted=sum(stat.accepted for stat in stats),
    )
