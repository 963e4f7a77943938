"""Recorded answers in a drafter's tokens: through its own template where the question is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from edgespec.types import Message, Prompt
from edgespec.vocab.reader import DrafterReader
from edgespec.vocab.tokenizer import ByteTokenizer

Turns = Sequence[tuple[str, str, int | None]]
"""Messages of a conversation, first to last: role, text, place of the one that it follows."""


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
    ) -> tuple[list[int], list[int]] | None:
        """Drafter tokens of what stood before an answer, and of the answer; None for no text."""
        answer = self._in_drafter_tokens(tokens)
        if not answer:
            return None
        asked = self._asked(self._text(tokens), conversation) if conversation else None
        if asked:
            before = self._render(tuple(asked))
        else:
            before = self._drafter.encode(b"".join(map(self._target.piece, context))).tokens
        return list(before), answer

    def read_all(
        self, answers: Iterable[tuple[Sequence[int], Sequence[int], str | None]]
    ) -> Iterator[tuple[list[int], list[int]]]:
        """Those of `answers` that have text: (tokens, context, conversation) each."""
        for tokens, context, conversation in answers:
            found = self.read(tokens, context, conversation)
            if found is not None:
                yield found

    def _in_drafter_tokens(self, tokens: Sequence[int]) -> list[int]:
        reader = DrafterReader(self._target, self._drafter)
        reader.extend(tokens)
        return list(reader.tokens)

    def _text(self, tokens: Sequence[int]) -> str:
        return b"".join(map(self._target.piece, tokens)).decode("utf-8", "replace")

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


def _message(role: str, text: str) -> Message:
    """A message; whoever is neither the model nor its instructions is the user."""
    if role == "assistant":
        return Message("assistant", text)
    return Message("system" if role == "system" else "user", text)
