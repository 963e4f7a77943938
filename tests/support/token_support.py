"""Databases with recorded tokens and chats, and a naive search to compare with."""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from edgespec.cache.chats.rows import add_chat, add_message, speak
from edgespec.cache.database import Database, open_database, open_in_memory, transaction
from edgespec.cache.tokens.sequences import (
    MAX_CONTEXT,
    Recording,
    SequenceStore,
    Tier,
    VocabularyKey,
)
from edgespec.cache.tokens.suffix_lookup import MAX_LENGTH, Cursor, TokenReader
from edgespec.chats import ChatHead, ChatMessage, ChatSettings

VOCABULARY = VocabularyKey("tiny", 1000)
OTHER_VOCABULARY = VocabularyKey("other", 1000)


class Recorded:
    """A database with sequences in it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.connection = database.connection
        self.store = SequenceStore(database.connection)

    def add(
        self,
        tokens: Sequence[int],
        context: Sequence[int] = (),
        *,
        conversation: str | None = None,
        tier: Tier = "model",
        vocabulary: VocabularyKey = VOCABULARY,
    ) -> int:
        scope = self.store.scope(vocabulary, tier)
        number = self.store.record(scope, Recording(tokens, context, conversation))
        assert number is not None
        return number

    def reader(
        self,
        neighbours: int = 1000,
        tier: Tier = "model",
        vocabulary: VocabularyKey = VOCABULARY,
    ) -> TokenReader:
        return TokenReader(self.connection, vocabulary, tier, neighbours)

    def count(self, table: str) -> int:
        return count(self.connection, table)


def votes(cursor: Cursor) -> Counter[int]:
    """How often each token came next."""
    return Counter(place.token for place in cursor.places)


class Talks:
    """Writes chats without branches, and reads them in the order in which messages came."""

    def __init__(
        self, connection: sqlite3.Connection, clock: Callable[[], float] = time.time
    ) -> None:
        self._connection = connection
        self._clock = clock

    def start(self, title: str, name: str | None = None) -> str:
        name, now = name or uuid.uuid4().hex, self._clock()
        with transaction(self._connection):
            add_chat(self._connection, ChatHead(name, title, now, now, 0), ChatSettings())
        return name

    def add(self, name: str, role: str, content: str) -> int:
        now = self._clock()
        with transaction(self._connection):
            (tip,) = self._connection.execute(
                "SELECT tip FROM conversations WHERE id = ?", (name,)
            ).fetchone()
            message = ChatMessage(0, tip, role, content, now)
            number = add_message(self._connection, name, message)
            speak(self._connection, name, number, now)
        return number

    def turns(self, name: str) -> list[tuple[str, str]]:
        return self._connection.execute(
            "SELECT role, content FROM messages WHERE conversation = ? ORDER BY id", (name,)
        ).fetchall()

    def names(self) -> list[str]:
        rows = self._connection.execute("SELECT id FROM conversations ORDER BY spoken DESC")
        return [name for (name,) in rows]


def in_memory() -> Recorded:
    return Recorded(open_in_memory())


def on_disk(path: Path) -> Recorded:
    return Recorded(open_database(path))


def count(connection: sqlite3.Connection, table: str) -> int:
    return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def longest_suffix(
    texts: Sequence[tuple[Sequence[int], Sequence[int]]], suffix: Sequence[int]
) -> tuple[int, list[int]]:
    """Length of the longest match and every token that followed one, by looking everywhere.

    `texts` holds each recorded sequence with its context.
    """
    best = 0
    followers: list[int] = []
    for context, tokens in texts:
        kept = list(context[-MAX_CONTEXT:] if context else ())
        whole = kept + list(tokens)
        for place in range(max(len(kept), 1), len(whole)):
            length = 0
            while (
                length < min(place, len(suffix), MAX_LENGTH)
                and whole[place - 1 - length] == suffix[-1 - length]
            ):
                length += 1
            if length > best:
                best, followers = length, []
            if length == best:
                followers.append(whole[place])
    return best, followers
