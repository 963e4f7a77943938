"""Warm runs: how much faster answers get by what was remembered of earlier ones.

Questions are asked and remembered, others are measured, and of those nothing is learned.

again       every question is asked once, then measured: the same prompt a second time
rewritten   the first prompts of pairs are asked, then the second ones measured: the same matter
unseen      other questions are asked, then new ones measured, beside the way without a database
week        seven days of one user: each is measured, then asked, so that the next one gains by it
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from edgespec.bench.suite import Question
from edgespec.errors import ContextOverflowError
from edgespec.types import Completion, CompletionRequest, Message, SamplingParams

Say = Callable[[str], None]
Complete = Callable[[CompletionRequest], Completion]
Warm = Literal["again", "rewritten", "unseen", "week"]


class Memory(Protocol):
    """What is remembered, behind a completer."""

    is_learning: bool
    """Whether answers are remembered."""

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
    """What is asked, step by step; nothing is learned in a run that is not `warm`."""

    warm: Warm | None
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


def learn(
    complete: Complete,
    memory: Memory,
    questions: Sequence[Question],
    sampling: SamplingParams,
    max_tokens: int,
    say: Say,
) -> None:
    """Ask what is to be remembered; `memory` is the completer's, and learns only meanwhile.

    `say` gets lines of progress.
    """
    memory.is_learning = True
    for number, question in enumerate(questions, start=1):
        say(f"learning {number} of {len(questions)}: {question.category} {question.id}")
        _ask(complete, question, sampling, max_tokens)
    memory.is_learning = False
    memory.flush()


def _ask(complete: Complete, question: Question, sampling: SamplingParams, max_tokens: int) -> None:
    """Ask every turn of a question, as far as the context reaches."""
    messages: list[Message] = []
    for turn in question.turns:
        messages.append(Message("user", turn))
        try:
            answer = complete(question.request(messages, sampling, max_tokens))
        except ContextOverflowError:
            return
        messages.append(Message("assistant", answer.text))
