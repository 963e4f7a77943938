"""Warm runs: how much faster answers get by what was remembered of earlier ones.

Questions are asked and remembered, others are measured, and of those nothing is learned.

again       every question is asked once, then measured: the same prompt a second time
rewritten   the first prompts of pairs are asked, then the second ones measured: the same matter
unseen      other questions are asked, then new ones measured
week        seven days of one user: each is measured, then asked, so that the next one gains by it

All compare with plain decoding but `unseen`, which compares with the same drafters over an empty
database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from edgespec.bench.runner import Pair, complete, drafted, plainly, run_ways
from edgespec.bench.suite import Question
from edgespec.errors import ContextOverflowError
from edgespec.protocols import Completer
from edgespec.types import Completion, CompletionRequest, Message, SamplingParams

Say = Callable[[str], None]
Warm = Literal["again", "rewritten", "unseen", "week"]


class Memory(Protocol):
    """What is remembered, behind a completer."""

    is_learning: bool
    """Whether answers are remembered."""

    is_used: bool
    """Whether drafts come from what is remembered."""

    def flush(self) -> bool:
        """Wait until everything said so far can be found; False if that takes too long."""
        ...


@dataclass(frozen=True, slots=True)
class Step:
    """Questions that are learned from, or measured without learning from them."""

    does: Literal["learn", "measure"]
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True)
class WarmPlan:
    """What is asked, step by step."""

    warm: Warm
    steps: tuple[Step, ...]

    @property
    def earlier(self) -> tuple[Question, ...]:
        """What is learned from, in order."""
        return self._of("learn")

    @property
    def questions(self) -> tuple[Question, ...]:
        """What is measured, in order."""
        return self._of("measure")

    def _of(self, does: str) -> tuple[Question, ...]:
        return tuple(
            question for step in self.steps if step.does == does for question in step.questions
        )


def run_warm(
    completer: Completer,
    memory: Memory,
    plan: WarmPlan,
    sampling: SamplingParams,
    max_tokens: int,
    say: Say,
) -> Iterator[Pair]:
    """Ask and measure, step by step; `memory` is the completer's, empty at first.

    The plain run of a pair is what the other is compared with. `say` gets lines of progress while
    nothing is measured.
    """
    speculatively = drafted(completer)

    def with_memory(request: CompletionRequest) -> Completion:
        memory.is_used = True
        return speculatively(request)

    def without_memory(request: CompletionRequest) -> Completion:
        memory.is_used = False
        return speculatively(request)

    against = without_memory if plan.warm == "unseen" else plainly(completer)
    num_asked = 0
    for step in plan.steps:
        if step.does == "measure":
            memory.flush()
            ways = (against, with_memory)
            yield from run_ways(completer, ways, step.questions, sampling, max_tokens)
            continue
        memory.is_learning = memory.is_used = True
        for question in step.questions:
            num_asked += 1
            place = f"{num_asked} of {len(plan.earlier)}"
            say(f"learning {place}: {question.category} {question.id}")
            _ask(completer, question, sampling, max_tokens)
        memory.is_learning = False


def _ask(
    completer: Completer, question: Question, sampling: SamplingParams, max_tokens: int
) -> None:
    """Ask every turn of a question, as far as the context reaches."""
    messages: list[Message] = []
    for turn in question.turns:
        messages.append(Message("user", turn))
        try:
            answer = complete(completer, question.request(messages, sampling, max_tokens))
        except ContextOverflowError:
            return
        messages.append(Message("assistant", answer.text))
