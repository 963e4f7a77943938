"""Statistics, compaction and checks of the database file."""

from __future__ import annotations

import functools
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from edgespec.cache.contents import content_problems
from edgespec.cache.database import DAMAGE, is_damage, open_in_memory
from edgespec.cache.eviction import bytes_in_use, evict
from edgespec.cache.tokens import transaction


@dataclass(frozen=True, slots=True)
class TierStats:
    """What is recorded of one vocabulary in one tier."""

    vocabulary: str
    tier: str
    num_sequences: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class DatabaseStats:
    """What the database holds; sizes in bytes, `file_bytes` with the write-ahead log."""

    path: str
    file_bytes: int
    used_bytes: int
    tiers: tuple[TierStats, ...]
    num_files: int
    num_conversations: int
    num_messages: int

    @property
    def num_tokens(self) -> int:
        """Tokens recorded in all tiers."""
        return sum(tier.num_tokens for tier in self.tiers)


def statistics(connection: sqlite3.Connection, path: Path) -> DatabaseStats:
    """Count what is there; raises sqlite3.Error."""
    tiers = connection.execute(
        "SELECT fingerprint, tier, count(sequences.id), coalesce(sum(sequences.num_tokens), 0)"
        " FROM scopes JOIN vocabularies ON vocabularies.id = vocabulary"
        " LEFT JOIN sequences ON scope = scopes.id GROUP BY scopes.id ORDER BY scopes.id"
    )
    return DatabaseStats(
        path=str(path),
        file_bytes=_file_bytes(path),
        used_bytes=bytes_in_use(connection),
        tiers=tuple(TierStats(*row) for row in tiers),
        num_files=_count(connection, "files"),
        num_conversations=_count(connection, "conversations"),
        num_messages=_count(connection, "messages"),
    )


def compact(connection: sqlite3.Connection, path: Path, limit_bytes: int) -> int:
    """Evict down to the limit and rewrite the file without gaps; the bytes freed.

    Needs as much free disk as the database takes. Raises sqlite3.Error and then changed nothing,
    except what was evicted.
    """
    before = _file_bytes(path)
    evict(connection, limit_bytes)
    with transaction(connection):
        connection.execute("INSERT INTO messages_fts (messages_fts) VALUES ('optimize')")
    connection.execute("VACUUM")
    connection.execute("PRAGMA optimize")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return max(before - _file_bytes(path), 0)


def problems(connection: sqlite3.Connection) -> list[str]:
    """What is wrong with the file, in SQLite's words and ours; empty if nothing is."""
    try:
        found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(10)")]
        found = [line for line in found if line != "ok"]
        found = found or _schema_problems(connection) or content_problems(connection)
        return found or [*_index_problems(connection), *_search_problems(connection)]
    except DAMAGE as error:
        if not is_damage(error):
            raise
        return [str(error)]


def rebuild_search(connection: sqlite3.Connection) -> None:
    """Make the full-text index anew from the messages; raises sqlite3.Error."""
    with transaction(connection):
        connection.execute("INSERT INTO messages_fts (messages_fts) VALUES ('rebuild')")


_NAMES = (
    "SELECT type, name, '' FROM sqlite_schema UNION ALL SELECT 'column', of.name, has.name"
    " FROM sqlite_schema AS of JOIN pragma_table_info(of.name) AS has"
)
"""Every table, index, trigger and column."""


def _schema_problems(connection: sqlite3.Connection) -> list[str]:
    return [
        f"the schema lacks the {kind} {name}{'.' if column else ''}{column}"
        for kind, name, column in sorted(_names_of_new() - set(connection.execute(_NAMES)))
    ]


@functools.cache
def _names_of_new() -> frozenset[tuple[str, str, str]]:
    """What is in the schema of a new database."""
    with open_in_memory() as empty:
        return frozenset(empty.connection.execute(_NAMES))


def _index_problems(connection: sqlite3.Connection) -> list[str]:
    """Compare the number of index rows with that of recorded tokens; both come in one snapshot."""
    rows, expected = connection.execute(
        "SELECT (SELECT count(*) FROM grams),"
        " (SELECT coalesce(sum(num_tokens - (num_context = 0)), 0) FROM sequences)"
    ).fetchone()
    if rows != expected:
        return [f"the token index has {rows} rows for {expected} tokens"]
    return []


def _search_problems(connection: sqlite3.Connection) -> list[str]:
    try:
        with transaction(connection):
            connection.execute(
                "INSERT INTO messages_fts (messages_fts, rank) VALUES ('integrity-check', 1)"
            )
    except sqlite3.DatabaseError as error:
        if not is_damage(error):  # locked: not checked, not broken
            raise
        return [f"the search index does not fit the messages ({error})"]
    return []


def _count(connection: sqlite3.Connection, table: str) -> int:
    return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def _file_bytes(path: Path) -> int:
    files = (path, path.with_name(path.name + "-wal"))
    return sum(file.stat().st_size for file in files if file.exists())
