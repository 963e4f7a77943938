"""The history of chats for a face: the user's own, or one in memory that is gone with the process.

Both implement `edgespec.chats.History`.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from edgespec.cache.chats.store import ChatStore
from edgespec.cache.database import Database, connect, open_in_memory, open_or_go_without
from edgespec.cache.facts import Facts
from edgespec.errors import StorageError
from edgespec.paths import Paths
from edgespec.reports import Report

DELETED_FOR_S = 7 * 86400.0
"""How long a deleted chat can be brought back."""

_BUSY_TIMEOUT_S = 2.0
_CACHE_BYTES = 8 << 20
_PURGE_S = 0.05
"""How long opening may purge; the rest goes next time."""

_HAS_TOKENS = (
    "SELECT EXISTS (SELECT 1 FROM sequences WHERE conversation IN"
    " (SELECT id FROM conversations WHERE deleted < ?))"
)


def open_history(
    path: Path, report: Report, on_delete: Callable[[str], None] | None = None
) -> ChatStore:
    """The chats in the database at `path`; in memory where that cannot be used, told in one line.

    Deleted chats whose time is over are purged with their tokens, and with what drafters learned by
    themselves, in `adaptations` beside the database. `on_delete` hears the id of each
    that is deleted, for what was computed of it to go at once.
    """
    database = open_or_go_without(path, report)
    if database.path is None:
        return ChatStore(database.connection)
    database.close()
    try:
        connection = connect(path, _BUSY_TIMEOUT_S, _CACHE_BYTES)
    except sqlite3.Error as error:
        report(f"the database {path} cannot be used ({error}); nothing is remembered")
        return open_incognito()
    with contextlib.suppress(sqlite3.Error):
        # The log is copied back after an answer, not before one.
        connection.execute("PRAGMA wal_autocheckpoint=0").fetchall()
    store = ChatStore(connection, path)
    if on_delete is not None:
        store.on_delete = on_delete
    with contextlib.suppress(StorageError):  # locked, full: another time
        store.close_the_cut()
    with contextlib.suppress(sqlite3.Error, StorageError):
        _purge_all(connection, path)
    return store


def open_kept_history(
    path: Path, report: Report, on_delete: Callable[[str], None] | None = None
) -> ChatStore:
    """The same, but StorageError where the database cannot be used, for it to be tried again."""
    lines: list[str] = []
    store = open_history(path, lines.append, on_delete)
    if store.is_in_memory:
        store.close()
        raise StorageError(lines[-1])
    for line in lines:
        report(line)
    return store


def open_incognito() -> ChatStore:
    """A history that nothing is left of."""
    return ChatStore(open_in_memory().connection)


def _purge_all(connection: sqlite3.Connection, path: Path) -> None:
    before = time.time() - DELETED_FOR_S
    (is_learned_from,) = connection.execute(_HAS_TOKENS, (before,)).fetchone()
    if purge(connection, before) and is_learned_from:
        from edgespec.runtime.unlearning import forget_learned_by_itself  # seldom needed

        facts = Facts(Database(connection, path))
        forget_learned_by_itself(facts, Paths(path.parent, path.parent).adaptations)


def purge(connection: sqlite3.Connection, before: float, most_s: float = _PURGE_S) -> int:
    """Forget chats deleted before a time, with what was learned from them; how many.

    Ends after `most_s` seconds with those that are left. Raises sqlite3.Error.
    """
    end = time.monotonic() + most_s
    rows = connection.execute(
        "SELECT id FROM conversations WHERE deleted < ? ORDER BY deleted", (before,)
    ).fetchall()
    if not rows:
        return 0
    from edgespec.cache.upkeep.forget import Forgetting  # loads numpy

    forgetting = Forgetting(connection)
    num_purged = 0
    for (chat,) in rows:
        if time.monotonic() > end:
            break
        forgetting.conversation(chat)
        num_purged += 1
    return num_purged
