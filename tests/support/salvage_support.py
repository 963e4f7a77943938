"""A database with some of everything, and all that it holds in terms of its user."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from token_support import OTHER_VOCABULARY, VOCABULARY, Recorded, on_disk

from edgespec.cache.conversations import Conversations
from edgespec.cache.database import open_database
from edgespec.cache.facts import Facts
from edgespec.cache.pairs import PairStore
from edgespec.cache.tokens import Recording

NUM_CONVERSATIONS = 40
"""Each of a question, an answer, and one or two recorded sequences; more pages than one a table."""


@dataclass(frozen=True)
class Kept:
    """All that a database holds, in terms of its user."""

    messages: frozenset[tuple[str, str, str]]
    sequences: frozenset[tuple[str, str, str | None, str | None, tuple[int, ...]]]
    small: frozenset[tuple[str, ...]]

    @property
    def num_tokens(self) -> int:
        return sum(len(tokens) for *_where, tokens in self.sequences)


def filled(path: Path) -> None:
    """Conversations, sequences in three scopes, imported files, and small values."""
    recorded = on_disk(path)
    conversations = Conversations(recorded.connection)
    stream = random.Random(3)
    for number in range(NUM_CONVERSATIONS):
        known = conversations.start(f"question {number}")
        conversations.add(known, "user", f"question {number} " + "words " * stream.randrange(60))
        conversations.add(known, "assistant", f"answer {number} " + "more " * stream.randrange(60))
        for vocabulary in (VOCABULARY, OTHER_VOCABULARY)[: 1 + number % 2]:
            tokens = [stream.randrange(1000) for _ in range(stream.choice((5, 128, 150, 700)))]
            context = [stream.randrange(1000) for _ in range(stream.choice((0, 1, 7, 32)))]
            recorded.add(tokens, context, conversation=known, vocabulary=vocabulary)
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
    recorded.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    recorded.database.close()


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
            *connection.execute("SELECT 'fact', kind, key, value FROM facts"),
            *connection.execute("SELECT 'calibration', target, drafter, value FROM calibrations"),
            *connection.execute("SELECT 'runs', target, drafter, value FROM ngram_caches"),
            *connection.execute("SELECT 'conversation', id, title FROM conversations"),
        ]
        messages = connection.execute("SELECT conversation, role, content FROM messages")
        return Kept(frozenset(messages), frozenset(sequences), frozenset(small))
