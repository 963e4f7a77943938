"""Conversations and their messages, in the order in which they were said, searchable by word.

Numbers of rows tell the order: a clock that goes backwards dates a message wrongly, but does not
move it.
"""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from edgespec.cache.database import transaction


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a list of conversations shows; `created` is in seconds since 1970."""

    id: str
    title: str
    created: float
    num_messages: int


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message that is to be kept."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """One turn."""

    role: str
    content: str
    created: float


@dataclass(frozen=True, slots=True)
class Hit:
    """A message that holds every word searched for; `snippet` has them in [brackets]."""

    conversation: str
    title: str
    role: str
    created: float
    snippet: str


class Conversations:
    """Keeps conversations; every method raises sqlite3.Error, and then changed nothing."""

    def __init__(
        self, connection: sqlite3.Connection, clock: Callable[[], float] = time.time
    ) -> None:
        """`connection` stays the caller's to close."""
        self._connection = connection
        self._clock = clock

    def start(self, title: str) -> str:
        """Begin a conversation; its id, 32 hex digits."""
        conversation = uuid.uuid4().hex
        with transaction(self._connection):
            self._connection.execute(
                "INSERT INTO conversations (id, title, created) VALUES (?, ?, ?)",
                (conversation, title, self._clock()),
            )
        return conversation

    def append(self, conversation: str, title: str, said: Iterable[NewMessage]) -> None:
        """Add messages, inside the caller's transaction; begins the conversation if need be."""
        now = self._clock()
        self._connection.execute(
            "INSERT OR IGNORE INTO conversations (id, title, created) VALUES (?, ?, ?)",
            (conversation, title, now),
        )
        self._connection.executemany(
            "INSERT INTO messages (conversation, role, content, created) VALUES (?, ?, ?, ?)",
            ((conversation, message.role, message.content, now) for message in said),
        )

    def follow(self, conversation: str, title: str, said: Sequence[NewMessage]) -> None:
        """As `append`, of `said`, all that was said in it, what is not there yet.

        What was asked and got no answer stays, also where it is not told of again.
        """
        stored = [NewMessage(turn.role, turn.content) for turn in self.messages(conversation)]
        self.append(conversation, title, not_yet_stored(stored, said))

    def rename(self, conversation: str, title: str) -> bool:
        """Give a conversation another title; False if there is none with this id."""
        with transaction(self._connection):
            return bool(
                self._connection.execute(
                    "UPDATE conversations SET title = ? WHERE id = ?", (title, conversation)
                ).rowcount
            )

    def add(self, conversation: str, role: str, content: str) -> bool:
        """Append a message; False if there is no conversation with this id."""
        with transaction(self._connection):
            return bool(
                self._connection.execute(
                    "INSERT INTO messages (conversation, role, content, created)"
                    " SELECT id, ?, ?, ? FROM conversations WHERE id = ?",
                    (role, content, self._clock(), conversation),
                ).rowcount
            )

    def all(self, limit: int = -1) -> list[Conversation]:
        """The conversations, the one spoken in last first; new, empty ones before all others.

        At most `limit` of them, unless it is negative.
        """
        rows = self._connection.execute(
            "SELECT conversations.id, title, conversations.created, count(messages.id)"
            " FROM conversations LEFT JOIN messages ON conversation = conversations.id"
            " GROUP BY conversations.id ORDER BY max(messages.id) IS NULL DESC,"
            " max(messages.id) DESC, number DESC LIMIT ?",
            (limit,),
        )
        return [Conversation(*row) for row in rows]

    def messages(self, conversation: str) -> list[StoredMessage]:
        """The turns of a conversation, first to last."""
        rows = self._connection.execute(
            "SELECT role, content, created FROM messages WHERE conversation = ? ORDER BY id",
            (conversation,),
        )
        return [StoredMessage(*row) for row in rows]

    def search(self, words: str, limit: int = 20) -> list[Hit]:
        """Messages that hold all of `words`, the best match first; none for no words."""
        query = match_query(words)
        if not query:
            return []
        rows = self._connection.execute(
            "SELECT conversation, title, role, messages.created,"
            " snippet(messages_fts, 0, '[', ']', '...', 16)"
            " FROM messages_fts JOIN messages ON messages.id = messages_fts.rowid"
            " JOIN conversations ON conversations.id = conversation"
            " WHERE messages_fts MATCH ? ORDER BY rank, messages.id DESC LIMIT ?",
            (query, limit),
        )
        return [Hit(*row) for row in rows]


def not_yet_stored(
    stored: Sequence[NewMessage], said: Sequence[NewMessage]
) -> Sequence[NewMessage]:
    """The end of `said` that does not follow, in this order, from what is stored.

    An answer to a question that has one already comes with its question. Space around a text does
    not count: clients may strip what they repeat.

    >>> hi, he = NewMessage("user", "Hi"), NewMessage("user", "He")
    >>> ho = NewMessage("assistant", "Ho")
    >>> not_yet_stored([hi, he], [hi, ho])
    [NewMessage(role='user', content='Hi'), NewMessage(role='assistant', content='Ho')]
    """
    bare = [(turn.role, turn.content.strip()) for turn in stored]
    num_known = place = 0
    for turn in said:
        try:
            place = bare.index((turn.role, turn.content.strip()), place) + 1
        except ValueError:
            break
        num_known += 1
    is_answer = num_known < len(said) and said[num_known].role == "assistant"
    if is_answer and num_known and place < len(bare):
        num_known -= 1
    return said[num_known:]


def match_query(words: str) -> str:
    """An FTS5 query for text that holds every one of `words`, whatever signs are in them.

    >>> match_query('say "hi" OR*')
    '"say" "hi" "OR*"'
    """
    bare = words.replace('"', " ").replace("\0", " ")
    return " ".join(f'"{word}"' for word in bare.split())
