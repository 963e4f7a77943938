"""Recorded answers as lessons: the text before, and what the target said, in the drafter's tokens.

    recorded     prompt ... | The cat sat on the mat, and then it ...        (one answer)
    lessons      [window of what stood before][The cat sat on the]           LESSON_TOKENS each
                 [window of what stood before][ mat, and then it ]

The most recent answers are held out: some guide the training (which state of it was the best), the
others judge what came of it. Neither is learned from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

WINDOW = 256
"""Tokens that a lesson shows before those that are learned."""

LESSON_TOKENS = 256
"""Tokens that one lesson teaches at most."""

HELD_OUT = 8
"""One answer of so many is held out, the latest ones."""

MOST_HELD_OUT = 96
"""More answers would only cost time: these have some thousand tokens."""

LEAST_ANSWERS = 2 * HELD_OUT
"""Fewer are not worth a training."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """Tokens of the drafter; those from number `first` (at least 1) on are to be guessed."""

    tokens: tuple[int, ...]
    first: int

    @property
    def num_taught(self) -> int:
        """Tokens to be guessed."""
        return len(self.tokens) - self.first


@dataclass(frozen=True, slots=True)
class Course:
    """What is learned, what tells how far it got, and what judges it at the end."""

    lessons: tuple[Lesson, ...]
    guide: tuple[Lesson, ...]
    judge: tuple[Lesson, ...]

    @property
    def guide_id(self) -> str:
        """Names the guide's lessons: what is said of others cannot be compared."""
        digest = hashlib.sha256()
        for lesson in self.guide:
            digest.update(np.array((lesson.first, *lesson.tokens), np.int64).tobytes())
        return digest.hexdigest()[:16]


def lessons_of(before: Sequence[int], answer: Sequence[int]) -> Iterator[Lesson]:
    """Cut one answer into lessons; `before` are the drafter's tokens of what it followed."""
    whole = (*before[-WINDOW:], *answer)
    start = min(len(before), WINDOW)
    if not start and whole:
        start = 1  # nothing is known of a first token that follows nothing
    for first in range(start, len(whole), LESSON_TOKENS):
        begin = max(first - WINDOW, 0)
        yield Lesson(tuple(whole[begin : first + LESSON_TOKENS]), first - begin)


def course_of(answers: Iterable[tuple[Sequence[int], Sequence[int]]]) -> Course:
    """Answers, each with what stood before it, oldest first, as a course."""
    cut = [tuple(lessons_of(before, answer)) for before, answer in answers]
    cut = [lessons for lessons in cut if lessons]
    num_held = min(len(cut) // HELD_OUT, MOST_HELD_OUT)
    learned, held = cut[: len(cut) - num_held], cut[len(cut) - num_held :]
    return Course(_joined(learned), _joined(held[0::2]), _joined(held[1::2]))


def order_of(num_lessons: int, epoch: int) -> list[int]:
    """The order in which lessons come the `epoch`th time: always the same, so it can go on."""
    order: list[int] = np.random.default_rng((epoch, num_lessons)).permutation(num_lessons).tolist()
    return order


def _joined(answers: Iterable[tuple[Lesson, ...]]) -> tuple[Lesson, ...]:
    return tuple(lesson for lessons in answers for lesson in lessons)
