"""What the database holds and how much room it takes; compaction."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from edgespec.cache.chats.search import optimize_search
from edgespec.cache.database import transaction
from edgespec.cache.tokens.eviction import evict, token_bytes
from edgespec.cache.upkeep.backup import backups


@dataclass(frozen=True, slots=True)
class TierStats:
    """What is recorded of one vocabulary in one tier."""

    vocabulary: str
    tier: str
    num_sequences: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class DatabaseStats:
    """What the database holds; sizes in bytes, `file_bytes` with the write-ahead log.

    The size limit is on `token_bytes`. `last_backup` is in seconds since 1970.
    """

    path: str
    file_bytes: int
    token_bytes: int
    tiers: tuple[TierStats, ...]
    num_files: int
    num_conversations: int
    num_messages: int
    num_backups: int
    backup_bytes: int
    last_backup: float | None

    @property
    def num_tokens(self) -> int:
        """Tokens recorded in all tiers."""
        return sum(tier.num_tokens for tier in self.tiers)


def statistics(connection: sqlite3.Connection, path: Path) -> DatabaseStats:
    """Count what is there; raises sqlite3.Error, OSError."""
    tiers = connection.execute(
        "SELECT fingerprint, tier, count(sequences.id), coalesce(sum(sequences.num_tokens), 0)"
        " FROM scopes JOIN vocabularies ON vocabularies.id = vocabulary"
        " LEFT JOIN sequences ON scope = scopes.id GROUP BY scopes.id ORDER BY scopes.id"
    )
    copies = [file.stat() for file in backups(path)]
    return DatabaseStats(
        path=str(path),
        file_bytes=_file_bytes(path),
        token_bytes=token_bytes(connection),
        tiers=tuple(TierStats(*row) for row in tiers),
        num_files=_count(connection, "files"),
        num_conversations=_count(connection, "conversations"),
        num_messages=_count(connection, "messages"),
        num_backups=len(copies),
        backup_bytes=sum(copy.st_size for copy in copies),
        last_backup=copies[0].st_mtime if copies else None,
    )


def compact(connection: sqlite3.Connection, path: Path, limit_bytes: int) -> int:
    """Evict tokens down to the limit and rewrite the file without gaps; the bytes freed.

    Needs as much free disk as the database takes. Raises sqlite3.Error and then changed nothing,
    except what was evicted.
    """
    before = _file_bytes(path)
    evict(connection, limit_bytes)
    with transaction(connection):
        optimize_search(connection)
    connection.execute("VACUUM")
    connection.execute("PRAGMA optimize")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return max(before - _file_bytes(path), 0)


def _count(connection: sqlite3.Connection, table: str) -> int:
    return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def _file_bytes(path: Path) -> int:
    files = (path, path.with_name(path.name + "-wal"))
    return sum(file.stat().st_size for file in files if file.exists())
