"""Forgetting on request: a conversation, everything before a time, or all that was learned.

What is forgotten is gone from the file and from those beside it: deleted pages are overwritten, the
search index is merged, the write-ahead log is emptied, a new backup takes the place of all earlier
ones, and damaged files whose content was recovered are deleted.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgespec.cache.chats.search import optimize_search
from edgespec.cache.database import DAMAGE, transaction
from edgespec.cache.tokens.sequences import SequenceStore
from edgespec.cache.upkeep.backup import backups, write_backup
from edgespec.cache.upkeep.quarantine import delete_damaged

_AT_ONCE = 64
"""Sequences forgotten in one transaction: others can write in between."""

_LEARNED = (
    *("grams", "blocks", "sequences", "files"),
    *("conversations", "messages"),
    *("ngram_caches", "calibrations"),
)


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What is gone."""

    num_conversations: int = 0
    num_messages: int = 0
    num_tokens: int = 0

    def __add__(self, other: Forgotten) -> Forgotten:
        return Forgotten(
            self.num_conversations + other.num_conversations,
            self.num_messages + other.num_messages,
            self.num_tokens + other.num_tokens,
        )


class Forgetting:
    """Deletes for good; every method raises sqlite3.Error, and what was deleted stays deleted."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """`connection` stays the caller's to close."""
        self._connection = connection
        self._store = SequenceStore(connection)

    def conversation(self, conversation: str) -> Forgotten:
        """Forget one conversation and what was learned from it, in one transaction."""
        with transaction(self._connection):
            return self._conversation(conversation)

    def before(self, time_s: float) -> Forgotten:
        """Forget conversations without a message since, and what else was learned before.

        `time_s` is in seconds since 1970.
        """
        forgotten = Forgotten()
        old = self._column(
            "SELECT conversations.id FROM conversations"
            " LEFT JOIN messages ON conversation = conversations.id"
            " GROUP BY conversations.id"
            " HAVING max(conversations.created, coalesce(max(messages.created), 0)) < ?",
            (time_s,),
        )
        for conversation in old:
            forgotten += self.conversation(str(conversation))
        sequences = self._column(
            "SELECT id FROM sequences WHERE created < ? AND (conversation IS NULL OR"
            " conversation NOT IN (SELECT id FROM conversations))",
            (time_s,),
        )
        for start in range(0, len(sequences), _AT_ONCE):
            with transaction(self._connection):
                some = sequences[start : start + _AT_ONCE]
                forgotten += Forgotten(num_tokens=self._remove(some))
        return forgotten

    def everything(self) -> Forgotten:
        """Forget all that was learned and said; measurements of the machine stay."""
        with transaction(self._connection):
            forgotten = Forgotten(
                self._count("SELECT count(*) FROM conversations"),
                self._count("SELECT count(*) FROM messages"),
                self._count("SELECT coalesce(sum(num_tokens), 0) FROM sequences"),
            )
            for table in _LEARNED:
                self._connection.execute(f"DELETE FROM {table}")
            self._connection.execute("DELETE FROM facts WHERE kind = 'calibration'")
        return forgotten

    def purge(self, path: Path, *, everything: bool = False) -> None:
        """Leave no trace of what was forgotten in the files beside the database at `path`.

        With `everything`, damaged files go that were never read. For a caller that holds the lock.
        Raises OSError, too.
        """
        with transaction(self._connection):
            optimize_search(self._connection)
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        earlier = [*backups(path), *path.parent.glob(f"{path.name}.schema-*.backup")]
        with contextlib.suppress(OSError, *DAMAGE):  # without room the promise comes first
            write_backup(path)
        for backup in earlier:
            backup.unlink(missing_ok=True)
        delete_damaged(path, everything=everything)

    def _conversation(self, conversation: str) -> Forgotten:
        execute = self._connection.execute
        sequences = self._column("SELECT id FROM sequences WHERE conversation = ?", (conversation,))
        num_tokens = self._remove(sequences)
        messages = execute("DELETE FROM messages WHERE conversation = ?", (conversation,)).rowcount
        conversations = execute("DELETE FROM conversations WHERE id = ?", (conversation,)).rowcount
        return Forgotten(conversations, messages, num_tokens)

    def _remove(self, sequences: Iterable[object]) -> int:
        return sum(self._store.remove(int(str(sequence))) for sequence in sequences)

    def _column(self, statement: str, values: Sequence[object]) -> list[object]:
        return [row[0] for row in self._connection.execute(statement, tuple(values))]

    def _count(self, statement: str) -> int:
        return int(self._connection.execute(statement).fetchone()[0])
