"""Recorded answers as lessons: the text before, and what the target said, in the drafter's tokens.

What stood before an answer is read through the drafter's own template where it is known.

    recorded     prompt ... | The cat sat on the mat, and then it ...        (one answer)
    lessons      [window of what stood before][The cat sat on the]           LESSON_TOKENS each,
                 [window of what stood before][ mat, and then it ]           more after a short past

The most recent answers are held out: some guide the training (which state of it was the best), the
others judge what came of it. Neither is learned from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgespec.learning.corpus import Said
from edgespec.learning.soft import Soft, Softener
from edgespec.types import Message, Prompt
from edgespec.vocab.reader import DrafterReader
from edgespec.vocab.tokenizer import ByteTokenizer

Turns = Sequence[tuple[str, str, int | None]]
"""Messages of a conversation, first to last: role, text, place of the one that it follows."""

WINDOW = 256
"""Tokens that a lesson shows before those that are learned."""

LESSON_TOKENS = 256
"""Tokens that one lesson teaches at most, and besides as many as its window has left."""

HELD_OUT = 8
"""One answer of so many is held out, the latest ones."""

MOST_HELD_OUT = 96
"""More answers would only cost time: these have some thousand tokens."""

LEAST_ANSWERS = 2 * HELD_OUT
"""Fewer are not worth a training."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """Tokens of the drafter; those from number `first` (at least 1) on are to be guessed.

    `soft` tells what the target held likely in place of each of these, where that is known.
    """

    tokens: tuple[int, ...]
    first: int
    soft: Soft | None = field(default=None, compare=False)

    @property
    def num_taught(self) -> int:
        """Tokens to be guessed."""
        return len(self.tokens) - self.first


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer in the drafter's tokens, what it followed, and what the target held likely."""

    before: Sequence[int]
    answer: Sequence[int]
    soft: Soft | None = None


@dataclass(frozen=True, slots=True)
class Course:
    """What is learned, what tells how far it got, and what judges it at the end.

    All of it comes from `num_answers` answers.
    """

    lessons: tuple[Lesson, ...]
    guide: tuple[Lesson, ...]
    judge: tuple[Lesson, ...]
    num_answers: int

    def __add__(self, other: Course) -> Course:
        return Course(
            self.lessons + other.lessons,
            self.guide + other.guide,
            self.judge + other.judge,
            self.num_answers + other.num_answers,
        )

    @property
    def guide_id(self) -> str:
        """Names the guide's lessons: what is said of others cannot be compared."""
        digest = hashlib.sha256()
        for lesson in self.guide:
            digest.update(np.array((lesson.first, *lesson.tokens), np.int64).tobytes())
        return digest.hexdigest()[:16]


def lessons_of(answered: Answered) -> Iterator[Lesson]:
    """Cut one answer into lessons."""
    before, soft = answered.before[-WINDOW:], answered.soft
    whole = (*before, *answered.answer)
    start = len(before)
    if not start and whole:
        start = 1  # nothing is known of a first token that follows nothing
    first = start
    while first < len(whole):
        begin = max(first - WINDOW, 0)
        end = min(begin + WINDOW + LESSON_TOKENS, len(whole))
        known = None if soft is None else soft[first - len(before) : end - len(before)]
        yield Lesson(tuple(whole[begin:end]), first - begin, known)
        first = end


def course_of(answers: Iterable[Answered]) -> Course:
    """Answers, oldest first, as a course."""
    cut = [tuple(lessons_of(answered)) for answered in answers]
    cut = [lessons for lessons in cut if lessons]
    num_held = min(len(cut) // HELD_OUT, MOST_HELD_OUT)
    learned, held = cut[: len(cut) - num_held], cut[len(cut) - num_held :]
    return Course(_joined(learned), _joined(held[0::2]), _joined(held[1::2]), len(cut))


def order_of(num_lessons: int, epoch: int) -> list[int]:
    """The order in which lessons come the `epoch`th time: always the same, so it can go on."""
    order: list[int] = np.random.default_rng((epoch, num_lessons)).permutation(num_lessons).tolist()
    return order


def _joined(answers: Iterable[tuple[Lesson, ...]]) -> tuple[Lesson, ...]:
    return tuple(lesson for lessons in answers for lesson in lessons)


class SessionReader:
    """Turns one recorded answer after another, oldest first, into what a drafter would have read.

    A conversation's answers come in the order in which they were given.
    """

    def __init__(
        self,
        vocabularies: tuple[ByteTokenizer, ByteTokenizer],
        render: Callable[[Prompt], list[int]],
        turns_of: Callable[[str], Turns],
    ) -> None:
        """`vocabularies` are the target's and the drafter's; `render` gives a prompt's tokens.

        `turns_of` gives the messages of a conversation.
        """
        self._target, self._drafter = vocabularies
        self._render = render
        self._turns_of = turns_of
        self._num_read: dict[str, int] = {}

    def read(
        self, tokens: Sequence[int], context: Sequence[int], conversation: str | None
    ) -> Answered | None:
        """An answer and what stood before it in drafter tokens; None for no text."""
        reader = DrafterReader(self._target, self._drafter)
        reader.extend(tokens)
        if not reader.tokens:
            return None
        text = self._target.decode(tokens).decode("utf-8", "replace")
        asked = self._asked(text, conversation) if conversation else None
        before = (
            self._render(tuple(asked))
            if asked
            else self._drafter.encode(self._target.decode(context)).tokens
        )
        return Answered(before, tuple(reader.tokens))

    def _asked(self, answer: str, conversation: str) -> list[Message] | None:
        """The messages before an answer, told by its text; None if it is not among them."""
        turns = self._turns_of(conversation)
        said = answer.strip()
        for number in range(self._num_read.get(conversation, 0), len(turns)):
            role, text, before = turns[number]
            if role == "assistant" and text.strip() == said:
                self._num_read[conversation] = number + 1
                asked = []
                while before is not None:
                    role, text, earlier = turns[before]
                    asked.append(_message(role, text))
                    before = earlier if earlier is not None and earlier < before else None
                return asked[::-1]
        return None


class CorpusReader:
    """Turns answers of a corpus into what a drafter would have read, with what was held likely."""

    def __init__(
        self,
        vocabularies: tuple[ByteTokenizer, ByteTokenizer],
        render: Callable[[Prompt], list[int]],
    ) -> None:
        """`vocabularies` are the target's and the drafter's; `render` gives a prompt's tokens."""
        self._vocabularies = vocabularies
        self._softener = Softener(*vocabularies)
        self._render = render

    def read(self, said: Said) -> Answered:
        """One answer."""
        reader = DrafterReader(*self._vocabularies)
        reader.extend(said.tokens.tolist())
        answer = tuple(reader.tokens)
        before = self._render(said.messages)
        return Answered(before, answer, self._softener.soften(said, answer))


def _message(role: str, text: str) -> Message:
    """A message; whoever is neither the model nor its instructions is the user."""
    if role == "assistant":
        return Message("assistant", text)
    return Message("system" if role == "system" else "user", text)
