"""Which conversation an answer belongs to.

A request of a chat names its conversation, whose messages the chat keeps itself
(`edgespec.cache.chats.store`). Requests of the server's clients come without a name: each repeats
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

from edgespec.cache.chats.conversations import NewMessage
from edgespec.cache.chats.rows import storable, title_of

MOST_KNOWN = 1024
"""Answers after which a conversation can still be continued, the latest."""


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

    def question(self, messages: Sequence[tuple[str, str]]) -> Entry:
        """Note that `messages` (role, text), at least one, were asked.

        >>> Journal().question([("user", "Hello")]).said
        (NewMessage(role='user', content='Hello'),)
        """
        return self._entry([NewMessage(role, storable(text)) for role, text in messages])

    def entry(self, messages: Sequence[tuple[str, str]], answer: str) -> Entry:
        """Note that `messages`, as in `question`, were answered by `answer`."""
        asked = self.question(messages)
        self._known.pop(_name(asked.said))  # the same question again may be another conversation's
        return self._entry(
            [*asked.said, NewMessage("assistant", storable(answer))], asked.conversation
        )

    def _entry(self, turns: Sequence[NewMessage], conversation: str | None = None) -> Entry:
        earlier = turns[:-1]
        conversation = conversation or self._known.get(_name(turns))
        if conversation is None and any(turn.role == "assistant" for turn in earlier):
            conversation = self._known.get(_name(earlier))
        conversation = conversation or uuid.uuid4().hex
        self._known[_name(turns)] = conversation
        while len(self._known) > self._most_known:
            self._known.popitem(last=False)
        asked = next((turn.content for turn in turns if turn.role == "user"), "")
        return Entry(conversation, title_of(asked), tuple(turns))


def _name(turns: Sequence[NewMessage]) -> str:
    """A hash of what was said; clients may strip the space around a text when they repeat it."""
    digest = hashlib.sha256()
    for turn in turns:
        text = turn.content.strip().encode()
        digest.update(f"{turn.role} {len(text)} ".encode() + text)
    return digest.hexdigest()
