"""Mending a database: an index is made anew in place, a damaged file replaced by what it held."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from edgespec.cache.aside import mark_salvaged, set_aside, unsalvaged
from edgespec.cache.database import DAMAGE, connect, is_damage, is_in_use, open_database
from edgespec.cache.mending import only_mender
from edgespec.cache.salvage import salvage
from edgespec.cache.tokens import TokenStore, transaction
from edgespec.cache.upkeep import problems, rebuild_search
from edgespec.errors import BusyError

_AT_ONCE = 64


def repair(path: Path) -> list[str]:
    """Mend the database at `path` and tell in lines what was done.

    A damaged file stays beside the new one, under another name; what earlier ones hold, which were
    set aside when they could not be opened, is added too. Raises sqlite3.Error or OSError if there
    is no room, BusyError if another repairs it or the file is to be replaced while others use it;
    done anew, it goes on.
    """
    with only_mender(path):
        return _repair(path)


def _repair(path: Path) -> list[str]:
    told = []
    with contextlib.closing(connect(path, 10.0, 32 << 20)) as connection:
        is_sound = not problems(connection)
        if not is_sound and _indexes_mended(connection):
            is_sound = True
            told.append("the indexes were made anew; nothing was lost")
    if not is_sound:
        if is_in_use(path):  # others would write into the damaged file
            raise BusyError(
                f"the database {path} is in use", "end other EdgeSpec commands, then try again"
            )
        set_aside(path)
        open_database(path).close()
    return told + [_salvage(path, aside) for aside in unsalvaged(path)]


def _salvage(path: Path, aside: Path) -> str:
    saved = salvage(aside, path)
    kept = mark_salvaged(path, aside)
    return (
        f"saved {saved.num_messages} messages and {saved.num_sequences} recorded sequences"
        f" ({saved.num_broken} lost something); the damaged file is kept as {kept.name}"
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


def _indexes_mended(connection: sqlite3.Connection) -> bool:
    """True if nothing is wrong with the file as such, and with the indexes nothing any more."""
    try:
        if [row[0] for row in connection.execute("PRAGMA integrity_check(1)")] != ["ok"]:
            return False
        rebuild_index(connection)
        rebuild_search(connection)
        return not problems(connection)
    except DAMAGE as error:
        if not is_damage(error):
            raise
        return False
