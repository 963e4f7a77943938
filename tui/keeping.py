"""What is kept of one conversation, and under which ids.

    history serves    its ids are those of the messages
    history fails     told once; messages get ids of our own, above all that a history gives
    it serves again   `keep_again` writes down what is missing; own ids stay, beside the history's

Every method waits for the disk, and none raises but `reopen`.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable
from typing import TypeVar

from edgespec.chats import ChatMessage, ChatSettings, History
from edgespec.errors import StorageError

T = TypeVar("T")

_own_ids = itertools.count(1 << 48)
_FIRST_OWN_ID = 1 << 48


class Keeping:
    """Keeps the conversation `chat`, None for one that is new; without a history nothing."""

    def __init__(
        self, history: History | None, report: Callable[[str], object], chat: str | None = None
    ) -> None:
        """`report` gets a line where the history begins to fail, and where it serves again."""
        self.chat = chat
        self.is_on = history is not None
        self._history = history
        self._report = report
        self._ids: dict[int, int] = {}  # the history's, of messages with an id of our own
        self._ended: set[int] = set()  # answers that ended while the history failed

    def begin(self, parent: int | None, text: str, settings: ChatSettings) -> tuple[int, int]:
        """Ids of a question that is asked and of its open answer."""
        chat, before = self.chat, self._id(parent) if parent is not None else None
        begun = self._write(lambda history: history.begin(chat, before, text, settings))
        if begun is None:
            return next(_own_ids), next(_own_ids)
        self.chat = begun.chat
        return self._known_as(begun.question), self._known_as(begun.answer)

    def another(self, question: int) -> int:
        """The id of another open answer."""
        answer = self._write(lambda history: history.another(self._id(question)))
        return next(_own_ids) if answer is None else self._known_as(answer)

    def reopen(self, answer: int) -> None:
        """An answer that was cut goes on; StorageError if another process writes it."""
        if self.is_on and self._history is not None:
            self._history.reopen(self._id(answer))

    def partial(self, answer: int, text: str, sources: Iterable[tuple[int, str]]) -> None:
        """Keep what there is of an open answer."""
        if self.is_on and self._history is not None:
            with contextlib.suppress(StorageError):  # the end of the answer is tried, too
                self._history.partial(self._id(answer), text, tuple(sources))

    def finish(self, answer: ChatMessage) -> None:
        """An answer ended."""
        self._write(lambda history: self._finish(history, answer))
        if not self.is_on:
            self._ended.add(answer.id)

    def withdraw(self, message: int) -> None:
        """A message came to nothing."""
        self._write(lambda history: history.withdraw(self._id(message)))

    def choose(self, tip: int) -> None:
        """These versions are shown from now on."""
        chat = self.chat
        if chat is not None:
            self._write(lambda history: history.choose(chat, self._id(tip)))

    def set(self, settings: ChatSettings) -> None:
        """The conversation is set to something else."""
        chat = self.chat
        if chat is not None:
            self._write(lambda history: history.set(chat, settings))

    def keep_again(
        self, messages: Iterable[ChatMessage], tip: int | None, settings: ChatSettings
    ) -> None:
        """Write down what was said while the history failed, if it serves again."""
        if self.is_on or self._history is None:
            return
        try:
            self._keep_all(self._history, {message.id: message for message in messages}, settings)
        except StorageError:  # as was told when it began
            return
        self.is_on = True
        self._ended.clear()
        self._report("all of this conversation is kept now")
        self.set(settings)
        if tip is not None:
            self.choose(tip)

    def _keep_all(
        self, history: History, messages: dict[int, ChatMessage], settings: ChatSettings
    ) -> None:
        """What is done when StorageError ends it is not done again the next time."""
        for message in messages.values():  # a parent comes before what follows it
            if message.id < _FIRST_OWN_ID or message.id in self._ids:
                continue
            parent = self._id(message.parent) if message.parent is not None else None
            if message.role == "user":
                begun = history.begin(self.chat, parent, message.content, settings)
                self.chat, self._ids[message.id] = begun.chat, begun.question
                answers = [each.id for each in messages.values() if each.parent == message.id]
                self._ids.update((answer, begun.answer) for answer in answers[:1])
            elif parent is not None:
                self._ids[message.id] = history.another(parent)
        for answer in sorted(self._ended & messages.keys()):
            self._finish(history, messages[answer])

    def _finish(self, history: History, answer: ChatMessage) -> None:
        said = answer.content, answer.state, answer.model, answer.figures, answer.sources
        history.finish(self._id(answer.id), *said)

    def _id(self, message: int) -> int:
        """The history's id of a message."""
        return self._ids.get(message, message)

    def _known_as(self, kept: int) -> int:
        """Our id of a message that the history has just given one.

        Once there are own ids they go on, because ids tell the order of messages.
        """
        if not self._ids:
            return kept
        own = next(_own_ids)
        self._ids[own] = kept
        return own

    def _write(self, change: Callable[[History], T]) -> T | None:
        """Have the history keep something; None where nothing is kept."""
        if not self.is_on or self._history is None:
            return None
        try:
            return change(self._history)
        except StorageError as error:
            self.is_on = False
            self._report(f"not kept from here on: {error} · /export writes it to a file")
            return None
