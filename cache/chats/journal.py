"""Which conversation an answer belongs to.

A chat names its conversation. Requests of the server's clients come without a name: each repeats
all that was said. One whose earlier turns are those of a conversation known here continues it; any
other begins a new one. Nothing of this is on disk: after a restart, a conversation without a name
that is continued is written down anew.
"""

from __future__ import annotations

import hashlib
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from edgespec.cache.chats.conversations import NewMessage, StoredMessage

MOST_KNOWN = 1024
"""Answers after which a conversation can still be continued, the latest."""

_TITLE_LETTERS = 80


@dataclass(frozen=True, slots=True)
class Entry:
    """All that was said in a conversation, which is begun if it is not there yet."""

    conversation: str
    title: str
    said: tuple[NewMessage, ...]


class Journal:
    """Tells conversations apart by what was said in them."""

    def __init__(self, most_known: int = MOST_KNOWN) -> None:
        """`most_known` bounds what is kept in memory: a hash and a name each."""
        self._most_known = most_known
        self._known: OrderedDict[str, str] = OrderedDict()

    def question(
        self, messages: Sequence[tuple[str, str]], conversation: str | None = None
    ) -> Entry:
        """Note that `messages` (role, text), at least one, were asked, in `conversation` if given.

        >>> Journal().question([("user", "Hello")], "first").said
        (NewMessage(role='user', content='Hello'),)
        """
        return self._entry(
            [NewMessage(role, _storable(text)) for role, text in messages], conversation
        )

    def entry(
        self,
        messages: Sequence[tuple[str, str]],
        answer: str,
        conversation: str | None = None,
    ) -> Entry:
        """Note that `messages`, as in `question`, were answered by `answer`."""
        asked = self.question(messages, conversation)
        self._known.pop(_name(asked.said))  # the same question again may be another conversation's
        return self._entry(
            [*asked.said, NewMessage("assistant", _storable(answer))], asked.conversation
        )

    def _entry(self, turns: Sequence[NewMessage], conversation: str | None) -> Entry:
        earlier = turns[:-1]
        conversation = conversation or self._known.get(_name(turns))
        if conversation is None and any(turn.role == "assistant" for turn in earlier):
            conversation = self._known.get(_name(earlier))
        conversation = conversation or uuid.uuid4().hex
        self._known[_name(turns)] = conversation
        while len(self._known) > self._most_known:
            self._known.popitem(last=False)
        return Entry(conversation, title_of(turns), tuple(turns))


def _name(turns: Sequence[NewMessage]) -> str:
    """A hash of what was said; clients may strip the space around a text when they repeat it."""
    digest = hashlib.sha256()
    for turn in turns:
        text = turn.content.strip().encode()
        digest.update(f"{turn.role} {len(text)} ".encode() + text)
    return digest.hexdigest()


def title_of(turns: Sequence[NewMessage | StoredMessage]) -> str:
    """The first words of the user."""
    asked = next((turn.content for turn in turns if turn.role == "user"), "")
    words = " ".join(asked[: 8 * _TITLE_LETTERS].split())
    return words if len(words) <= _TITLE_LETTERS else words[: _TITLE_LETTERS - 1] + "…"


def _storable(text: str) -> str:
    """Text that SQLite takes: lone surrogates, which no file can hold, become escapes."""
    return text.encode("utf-8", "backslashreplace").decode()
