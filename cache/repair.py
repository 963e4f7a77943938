"""Mending a database: an index is made anew in place, a damaged file replaced by what it held."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from edgespec.cache.database import DAMAGE, connect, open_database, set_aside
from edgespec.cache.salvage import salvage
from edgespec.cache.tokens import TokenStore, transaction
from edgespec.cache.upkeep import problems, rebuild_search

_AT_ONCE = 64


def repair(path: Path) -> str:
    """Mend the database at `path` and tell in one line what was done.

    The damaged file stays beside the new one, under another name. Raises sqlite3.Error or OSError
    if there is no room for a new file.
    """
    with contextlib.closing(connect(path, 10.0, 32 << 20)) as connection:
        if _is_readable(connection):
            rebuild_index(connection)
            rebuild_search(connection)
            if not problems(connection):
                return "the indexes were made anew; nothing was lost"
    aside = set_aside(path)
    open_database(path).close()
    saved = salvage(aside, path)
    return (
        f"saved {saved.num_messages} messages and {saved.num_sequences} recorded sequences"
        f" ({saved.num_lost_sequences} lost); the damaged file is {aside.name}"
    )


def rebuild_index(connection: sqlite3.Connection) -> None:
    """Make the token index anew from the recorded tokens; raises sqlite3.Error.

    Interrupted, it is incomplete, which `problems` sees.
    """
    store = TokenStore(connection)
    with transaction(connection):
        connection.execute("DELETE FROM grams")
    sequences = [number for (number,) in connection.execute("SELECT id FROM sequences")]
    for start in range(0, len(sequences), _AT_ONCE):
        with transaction(connection):
            for sequence in sequences[start : start + _AT_ONCE]:
                store.index(sequence)


def _is_readable(connection: sqlite3.Connection) -> bool:
    """True if SQLite finds nothing wrong with the file as such."""
    try:
        return [row[0] for row in connection.execute("PRAGMA integrity_check(1)")] == ["ok"]
    except DAMAGE:
        return False
