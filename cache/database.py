"""Opening the database: one SQLite file, write-ahead log, numbered migrations.

A damaged file goes into quarantine and its newest sound backup takes its place; a file that cannot
be opened at all is replaced by a database in memory, so that a chat goes on without remembering.
Both are told in `Database.notice`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from edgespec.cache.schema import is_newest
from edgespec.errors import EdgeSpecError, StorageError
from edgespec.files.scratch import taking_the_place_of
from edgespec.reports import Report

BUSY_TIMEOUT_S = 2.0
"""How long a statement waits for another process's lock."""

_PAUSE_S = 0.005
"""Between attempts where SQLite does not wait by itself."""

_SETTINGS = ("synchronous=NORMAL", "secure_delete=ON")
"""Deleted pages are overwritten: what was forgotten is gone, and no repair brings it back."""

DAMAGE = (sqlite3.DatabaseError, UnicodeDecodeError)
"""What a damaged file raises: SQLite's own message may quote bytes of it that are no text."""


class BackupError(Exception):
    """A database of an older schema could not be copied, and was not changed."""


def is_damage(error: Exception) -> bool:
    """True for an error of DAMAGE that neither a lock nor the disk explains.

    SQLite's plain error, as for a table that is not there, means a damaged schema; one without a
    code is Python's, for text that is none.
    """
    if isinstance(error, sqlite3.OperationalError):
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        return bool(code == sqlite3.SQLITE_ERROR)
    return isinstance(error, DAMAGE)


def storage_error(error: Exception, path: Path | None) -> StorageError:
    """An error of DAMAGE as one line for people and what they can do about it."""
    where = f"the database {path}" if path else "the database in memory"
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if is_damage(error):
        return StorageError(f"{where} is damaged ({error})", "run `edgespec db check --repair`")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StorageError(f"{where} is locked by another program", "try again when it is done")
    if code == sqlite3.SQLITE_FULL:
        return StorageError(f"{where} is full: no room for more", "free disk space, then try again")
    return StorageError(
        f"{where} cannot be used ({error})", "free it, or set EDGESPEC_HOME to another folder"
    )


class Database:
    """The open database; `notice` is empty, or one line on why it is not the usual file."""

    def __init__(self, connection: sqlite3.Connection, path: Path | None, notice: str = "") -> None:
        """Use `open_database`; this takes a connection that is already migrated."""
        self.connection = connection
        self.path = path
        self.notice = notice

    def close(self) -> None:
        """Close the connection; what was committed is on disk."""
        self.connection.close()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def open_database(path: Path) -> Database:
    """Open or create the database at `path`, migrated to the newest schema.

    Raises StorageError only for a file of a newer EdgeSpec, which must not be touched.
    """
    try:
        return Database(open_migrated(path), path)
    except DAMAGE as error:
        if is_damage(error):
            return _replaced(path, error)
        # locked, read-only, disk full, no permission
        return _in_memory(f"the database {path} cannot be used ({error}); nothing is remembered")
    except (OSError, BackupError) as error:
        why = getattr(error, "strerror", None) or error
        return _in_memory(f"the database {path} cannot be used ({why}); nothing is remembered")


def open_or_go_without(path: Path, report: Report) -> Database:
    """The database; one in memory where it cannot be used, after one line that says why."""
    try:
        database = open_database(path)
    except StorageError as error:  # of a newer EdgeSpec: not to be touched
        report(f"{error}; nothing is remembered")
        return open_in_memory()
    if database.notice:
        report(database.notice)
    return database


def open_in_memory() -> Database:
    """A database that forgets, for tests and for `notice` cases."""
    return _in_memory("")


def open_migrated(path: Path, *, backs_up: bool = True) -> sqlite3.Connection:
    """Open or create a database in the newest schema, an older one after a backup beside it.

    Raises OSError, sqlite3.Error, UnicodeDecodeError, BackupError and what `open_database` does.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))  # owner-only from the first byte
    elif path.stat().st_size == 0 and any(path.parent.glob(f"{path.name}.backup-*")):
        raise sqlite3.DatabaseError("the file is empty")  # for SQLite a new database
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, check_same_thread=False)
    try:
        _write_ahead(connection)
        _set(connection, _SETTINGS)
        if not is_newest(connection):
            _migrate(connection, str(path), (lambda old: _back_up(path, old)) if backs_up else None)
    except BaseException:
        connection.close()
        raise
    return connection


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch to WAL, waiting for others: of several that do so at once SQLite refuses all but one.

    It does not wait there by itself, because two that waited for each other would do so for ever.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not is_busy or time.monotonic() >= deadline:
                raise
        time.sleep(_PAUSE_S)


def connect(path: Path, busy_timeout_s: float, num_cache_bytes: int) -> sqlite3.Connection:
    """One more connection to a database that `open_database` has opened, for any one thread.

    Transactions are the caller's own (`transaction`). Raises sqlite3.Error.
    """
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",  # never makes a new, empty file
        uri=True,
        timeout=busy_timeout_s,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        _set(connection, (*_SETTINGS, f"cache_size=-{num_cache_bytes // 1024}"))
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of the block or nothing of it; takes the write lock at once."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # some errors have rolled back already
            connection.execute("ROLLBACK")
        raise


def is_in_use(path: Path) -> bool:
    """Whether others have a database open; not to be told where its header is damaged."""
    try:
        with contextlib.closing(connect(path, 0.0, 1 << 20)) as connection:
            connection.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
            connection.execute("BEGIN EXCLUSIVE")
    except DAMAGE as error:
        return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
    return False


def _set(connection: sqlite3.Connection, settings: Iterable[str]) -> None:
    for setting in settings:
        connection.execute(f"PRAGMA {setting}").fetchall()


def _migrate(
    connection: sqlite3.Connection, where: str, backup: Callable[[int], None] | None
) -> None:
    """Bring the schema up to date; imports what that takes only here, as it is seldom done."""
    import sqlite_utils

    from edgespec.cache.migrations import upgrade

    upgrade(sqlite_utils.Database(connection), where, backup)


def _back_up(path: Path, schema: int) -> None:
    from edgespec.cache.upkeep.backup import copy_database

    try:
        with taking_the_place_of(path.with_name(f"{path.name}.schema-{schema}.backup")) as scratch:
            copy_database(path, scratch)
    except (OSError, sqlite3.Error) as error:
        raise BackupError(f"no backup before the upgrade: {error}") from error


def _replaced(path: Path, error: Exception) -> Database:
    """Have a backup take the place of a damaged database, unless others write to it."""
    from edgespec.cache.upkeep.lock import upkeep_lock
    from edgespec.cache.upkeep.quarantine import replace_damaged

    problem = f"the database {path} is damaged ({error})"
    try:
        with upkeep_lock(path, BUSY_TIMEOUT_S):
            with contextlib.suppress(*DAMAGE):  # another process was first
                return Database(open_migrated(path), path)
            if is_in_use(path):
                return _in_memory(
                    f"{problem} and in use; nothing is remembered until other EdgeSpec commands end"
                )
            damaged, backup = replace_damaged(path)
            return Database(open_migrated(path), path, _replacement_notice(error, damaged, backup))
    except (OSError, sqlite3.Error, UnicodeDecodeError, BackupError, EdgeSpecError) as second:
        return _in_memory(f"{problem} and cannot be replaced ({second}); nothing is remembered")


def _replacement_notice(error: Exception, damaged: Path, backup: Path | None) -> str:
    new = "a new one was begun"
    if backup is not None:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(backup.stat().st_mtime))
        new = f"its backup of {made} took its place"
    return (
        f"the database was damaged ({error}), {new}; `edgespec db check --repair` adds what can"
        f" still be read of {damaged.name}"
    )


def _in_memory(notice: str) -> Database:
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    _migrate(connection, ":memory:", None)
    return Database(connection, None, notice)
