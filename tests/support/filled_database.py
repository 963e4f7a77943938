"""A database with some of everything, backed up before the last of it came, and what it holds."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from token_support import OTHER_VOCABULARY, VOCABULARY, Recorded, Talks, on_disk

from edgespec.cache.database import open_database
from edgespec.cache.facts import Facts, PairStore
from edgespec.cache.tokens.sequences import Recording
from edgespec.cache.upkeep.backup import back_up

PAGE = 4096
NUM_EARLIER, NUM_LATER = 30, 20
"""Conversations before and after the backup: each a question, an answer, one or two sequences."""


@dataclass(frozen=True)
class Kept:
    """All that a database holds, in terms of its user; small values without those that change."""

    messages: Counter[tuple[str, str, str]]
    sequences: Counter[tuple[str, str, str | None, str | None, tuple[int, ...]]]
    small: frozenset[tuple[str, ...]]

    @property
    def num_tokens(self) -> int:
        return sum(len(row[4]) * count for row, count in self.sequences.items())

    def __le__(self, other: Kept) -> bool:
        return (
            self.messages <= other.messages
            and self.sequences <= other.sequences
            and self.small <= other.small
        )


def filled(path: Path) -> Kept:
    """Fill the database at `path`; what of it is in its backup."""
    recorded = on_disk(path)
    stream = random.Random(3)
    _talk(recorded, range(NUM_EARLIER), stream)
    scope = recorded.store.scope(VOCABULARY, "statistics")
    for name in ("/notes/a.md", "/notes/b.md"):
        file = recorded.connection.execute(
            "INSERT INTO files (scope, path, sha256, num_bytes) VALUES (?, ?, 'hash', 900)",
            (scope, name),
        ).lastrowid
        recorded.connection.commit()
        for _ in range(3):
            tokens = [stream.randrange(1000) for _ in range(200)]
            recorded.store.record(scope, Recording(tokens, file=file))
    Facts(recorded.database).put("model", "m", {"rows": 16})
    PairStore(recorded.database, "calibrations").save("t", "d", b"ESAC1 counts")
    PairStore(recorded.database, "ngram_caches").save("t", "d", b"ESNG1 runs")
    back_up(path)
    backed_up = kept(path)
    _talk(recorded, range(NUM_EARLIER, NUM_EARLIER + NUM_LATER), stream)
    Facts(recorded.database).put("model", "later", {"rows": 8})
    recorded.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    recorded.database.close()
    return backed_up


def _talk(recorded: Recorded, numbers: Iterable[int], stream: random.Random) -> None:
    conversations = Talks(recorded.connection)
    for number in numbers:
        known = conversations.start(f"question {number}")
        conversations.add(known, "user", f"question {number} " + "words " * stream.randrange(60))
        conversations.add(known, "assistant", f"answer {number} " + "more " * stream.randrange(60))
        for vocabulary in (VOCABULARY, OTHER_VOCABULARY)[: 1 + number % 2]:
            tokens = [stream.randrange(1000) for _ in range(stream.choice((5, 128, 150, 700)))]
            context = [stream.randrange(1000) for _ in range(stream.choice((0, 1, 7, 32)))]
            recorded.add(tokens, context, conversation=known, vocabulary=vocabulary)


def kept(path: Path) -> Kept:
    with open_database(path) as database:
        connection = database.connection
        store = Recorded(database).store
        sequences = [
            (*where, tuple(store.read(first, num_context + num_tokens)[num_context:].tolist()))
            for *where, first, num_context, num_tokens in connection.execute(
                "SELECT fingerprint, tier, conversation, path, first_block, num_context,"
                " sequences.num_tokens FROM sequences JOIN scopes ON scopes.id = sequences.scope"
                " JOIN vocabularies ON vocabularies.id = vocabulary"
                " LEFT JOIN files ON files.id = file"
            )
        ]
        small = [
            *connection.execute("SELECT 'fact', kind, key FROM facts"),
            *connection.execute("SELECT 'calibration', target, drafter FROM calibrations"),
            *connection.execute("SELECT 'runs', target, drafter FROM ngram_caches"),
            *connection.execute("SELECT 'conversation', id, title FROM conversations"),
        ]
        messages = connection.execute("SELECT conversation, role, content FROM messages")
        return Kept(Counter(messages), Counter(sequences), frozenset(small))


def pages_of(path: Path, name: str) -> list[int]:
    """Numbers of the pages of one table or index, leaves last."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(
            "SELECT pageno FROM dbstat WHERE name = ?"
            " ORDER BY pagetype = 'leaf', path = '/' DESC, pageno",
            (name,),
        )
        return [page for (page,) in rows]


def overwrite(path: Path, pages: Iterable[int]) -> None:
    """Damage whole pages."""
    with path.open("r+b") as file:
        for page in pages:
            file.seek((page - 1) * PAGE)
            file.write(b"\xa5" * PAGE)
