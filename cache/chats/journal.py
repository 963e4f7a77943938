"""Which conversation an answer belongs to.

Requests come without a name: each repeats all that was said, as a chat and every client of the
server do. A request whose earlier turns are those of a conversation known here continues it; any
other begins a new one. Nothing of this is on disk: after a restart, a conversation that is
continued is written down anew.
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
    """What an answer adds to a conversation, which is begun if it is not there yet."""

    conversation: str
    title: str
    said: tuple[NewMessage, ...]


class Journal:
    """Tells conversations apart by what was said in them."""

    def __init__(self, most_known: int = MOST_KNOWN) -> None:
        """`most_known` bounds what is kept in memory: a hash and a name each."""
        self._most_known = most_known
        self._known: OrderedDict[str, str] = OrderedDict()

    def entry(self, messages: Sequence[tuple[str, str]], answer: str) -> Entry:
        """Note that `messages` (role, text), at least one, were answered by `answer`."""
        turns = [NewMessage(role, _storable(text)) for role, text in messages]
        turns.append(NewMessage("assistant", _storable(answer)))
        num_earlier = len(turns) - 2
        conversation = None
        if any(turn.role == "assistant" for turn in turns[:num_earlier]):
            conversation = self._known.get(_name(turns[:num_earlier]))
        said = turns[num_earlier:] if conversation is not None else turns
        conversation = conversation or uuid.uuid4().hex
        self._known[_name(turns)] = conversation
        while len(self._known) > self._most_known:
            self._known.popitem(last=False)
        return Entry(conversation, title_of(turns), tuple(said))


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
