"""Warm runs: how much faster answers get by what was remembered of earlier ones.

Earlier questions are asked and remembered; then others are measured, and nothing more is learned.

again       every question is asked once, then measured: the same prompt a second time
rewritten   the first prompts of pairs are asked, then the second ones measured: the same matter
unseen      other questions are asked, then new ones measured

`again` and `rewritten` compare with plain decoding, `unseen` with the same drafters over an empty
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
Warm = Literal["again", "rewritten", "unseen"]


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
class WarmPlan:
    """What is asked before, and what is then measured."""

    warm: Warm
    earlier: tuple[Question, ...]
    questions: tuple[Question, ...]


def run_warm(
    completer: Completer,
    memory: Memory,
    plan: WarmPlan,
    sampling: SamplingParams,
    max_tokens: int,
    say: Say,
) -> Iterator[Pair]:
    """Ask, then measure; `memory` is the completer's, empty at first.

    The plain run of a pair is what the other is compared with. `say` gets lines of progress while
    nothing is measured.
    """
    memory.is_learning = memory.is_used = True
    for number, question in enumerate(plan.earlier, start=1):
        say(f"learning {number} of {len(plan.earlier)}: {question.category} {question.id}")
        _ask(completer, question, sampling, max_tokens)
    memory.is_learning = False
    memory.flush()
    speculatively = drafted(completer)

    def with_memory(request: CompletionRequest) -> Completion:
        memory.is_used = True
        return speculatively(request)

    def without_memory(request: CompletionRequest) -> Completion:
        memory.is_used = False
        return speculatively(request)

    against = without_memory if plan.warm == "unseen" else plainly(completer)
    yield from run_ways(completer, (against, with_memory), plan.questions, sampling, max_tokens)


def _ask(
    completer: Completer, question: Question, sampling: SamplingParams, max_tokens: int
) -> None:
    """Ask every turn of a question, as far as the context reaches."""
    messages: list[Message] = []
    for turn in question.turns:
        messages.append(Message("user", turn))
        try:
            answer = complete(completer, CompletionRequest(tuple(messages), sampling, max_tokens))
        except ContextOverflowError:
            return
        messages.append(Message("assistant", answer.text))
