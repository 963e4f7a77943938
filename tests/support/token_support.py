"""Databases in memory and on disk with recorded tokens, and a naive search to compare with."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from edgespec.cache.database import Database, open_database, open_in_memory
from edgespec.cache.tokens.sequences import (
    MAX_CONTEXT,
    Recording,
    SequenceStore,
    Tier,
    VocabularyKey,
)
from edgespec.cache.tokens.suffix_lookup import MAX_LENGTH, Cursor, TokenReader

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
