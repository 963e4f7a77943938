"""Mending a database: an index is made anew in place, a damaged file replaced by its last backup.

What SQLite still reads of the damaged file is then added to the backup. Done again after an
interrupt, a repair goes on: the damaged file keeps its name until all of it was added.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path

from edgespec.cache.database import (
    DAMAGE,
    connect,
    is_damage,
    is_in_use,
    open_database,
    transaction,
)
from edgespec.cache.tokens.sequences import SequenceStore
from edgespec.cache.upkeep.check import problems
from edgespec.cache.upkeep.lock import upkeep_lock
from edgespec.cache.upkeep.quarantine import mark_recovered, replace_damaged, unread
from edgespec.cache.upkeep.recovery import recover
from edgespec.errors import BusyError


def repair(path: Path) -> list[str]:
    """Mend the database at `path` and tell in lines what was done.

    What damaged files hold that were replaced when they could not be opened is added, too. Raises
    sqlite3.Error or OSError if there is no room, BusyError if another repairs it or the file is to
    be replaced while others use it.
    """
    with upkeep_lock(path):
        told = _sound(path)
        for damaged in unread(path):
            num_messages, num_sequences = recover(damaged, path)
            kept = mark_recovered(path, damaged)
            told.append(
                f"added {num_messages} messages and {num_sequences} recorded sequences of the"
                f" damaged file, which is kept as {kept.name}"
            )
        return told


def _sound(path: Path) -> list[str]:
    """Have a sound database at `path`, and tell in lines how."""
    with contextlib.closing(connect(path, 10.0, 32 << 20)) as connection:
        if not problems(connection):
            return []
        if _indexes_mended(connection):
            return ["the indexes were made anew; nothing was lost"]
    if is_in_use(path):  # others would write into the damaged file
        raise BusyError(
            f"the database {path} is in use", "end other EdgeSpec commands, then try again"
        )
    _damaged, backup = replace_damaged(path)
    open_database(path).close()
    if backup is None:
        return ["there is no sound backup: a new database was begun"]
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime(backup.stat().st_mtime))
    return [f"the backup of {made} took the place of the database"]


def _indexes_mended(connection: sqlite3.Connection) -> bool:
    """True if nothing is wrong with the file as such, and with the indexes nothing any more."""
    try:
        if [row[0] for row in connection.execute("PRAGMA integrity_check(1)")] != ["ok"]:
            return False
        SequenceStore(connection).rebuild_index()
        with transaction(connection):
            connection.execute("INSERT INTO messages_fts (messages_fts) VALUES ('rebuild')")
        return not problems(connection)
    except DAMAGE as error:
        if not is_damage(error):
            raise
        return False
