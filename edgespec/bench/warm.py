"""Warm runs: how much faster answers get by what was remembered of earlier ones.

Earlier questions are asked and remembered; then others are measured, and nothing more is learned.

again       every question is asked once, then measured: the same prompt a second time
rewritten   the first prompts of pairs are asked, then the second ones measured: the same matter
unseen      other questions are asked, then new ones measured, beside the way without a database
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from edgespec.bench.suite import Question
from edgespec.errors import ContextOverflowError
from edgespec.types import Completion, CompletionRequest, Message, SamplingParams

Say = Callable[[str], None]
Complete = Callable[[CompletionRequest], Completion]
Warm = Literal["again", "rewritten", "unseen"]


class Memory(Protocol):
    """What is remembered, behind a completer."""

    is_learning: bool
    """Whether answers are remembered."""

    def flush(self) -> bool:
        """Wait until everything said so far can be found; False if that takes too long."""
        ...


@dataclass(frozen=True, slots=True)
class WarmPlan:
    """What is asked before, and what is then measured."""

    warm: Warm
    earlier: tuple[Question, ...]
    questions: tuple[Question, ...]


def learn_earlier(
    complete: Complete,
    memory: Memory,
    plan: WarmPlan,
    sampling: SamplingParams,
    max_tokens: int,
    say: Say,
) -> None:
    """Ask what is to be remembered; `memory` is the completer's, and learns nothing more then.

    `say` gets lines of progress.
    """
    memory.is_learning = True
    for number, question in enumerate(plan.earlier, start=1):
        say(f"learning {number} of {len(plan.earlier)}: {question.category} {question.id}")
        _ask(complete, question, sampling, max_tokens)
    memory.is_learning = False
    memory.flush()


def _ask(complete: Complete, question: Question, sampling: SamplingParams, max_tokens: int) -> None:
    """Ask every turn of a question, as far as the context reaches."""
    messages: list[Message] = []
    for turn in question.turns:
        messages.append(Message("user", turn))
        try:
            answer = complete(CompletionRequest(tuple(messages), sampling, max_tokens))
        except ContextOverflowError:
            return
        messages.append(Message("assistant", answer.text))
