"""Backups: copies of the database beside it, NAME.backup-NUMBER, the last KEPT of them.

SQLite copies a consistent state, step by step, while others read and write. A copy counts once it
is on disk and its pages are in order, so that a damaged database never drives out the copies from
before. Numbers, not clocks, tell which is the newest.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from edgespec.cache.database import connect
from edgespec.cache.upkeep.lock import upkeep_lock
from edgespec.errors import Cancelled
from edgespec.files.scratch import taking_the_place_of

KEPT = 3

_DAY_S = 86400.0
_STEP_PAGES = 256
_REST_S = 0.001
"""Between two steps of a megabyte each, for whoever else needs the disk."""

_CHECK_STEPS = 100_000
"""Instructions of SQLite's between two looks whether a check is to end."""

IsOver = Callable[[], bool]
"""Asked again and again by what takes long: True ends it at once."""


def backups(path: Path) -> list[Path]:
    """The backups of the database at `path`, the newest first."""
    numbers = {}
    for file in path.parent.glob(f"{path.name}.backup-*"):
        number = file.name.removeprefix(f"{path.name}.backup-")
        if number.isdecimal():
            numbers[int(number)] = file
    return [numbers[number] for number in sorted(numbers, reverse=True)]


def is_due(path: Path) -> bool:
    """True if there is no backup from within a day."""
    for newest in backups(path)[:1]:
        with contextlib.suppress(FileNotFoundError):
            return not 0 <= time.time() - newest.stat().st_mtime < _DAY_S
    return True


def back_up(path: Path, is_over: IsOver = lambda: False, wait_s: float | None = None) -> Path:
    """Make a backup and drop the oldest beyond KEPT; raises Cancelled once `is_over` says so.

    Raises BusyError, OSError or sqlite3.Error, which is damage if the pages are not in order; then
    there are the same backups as before.
    """
    with upkeep_lock(path, wait_s):
        return write_backup(path, is_over)


def write_backup(path: Path, is_over: IsOver = lambda: False) -> Path:
    """As `back_up`, for a caller that holds the lock."""
    old = backups(path)
    number = int(old[0].name.rpartition("-")[2]) + 1 if old else 1
    new = path.with_name(f"{path.name}.backup-{number:06}")
    with taking_the_place_of(new) as scratch:
        copy_database(path, scratch, is_over)
    for expired in old[KEPT - 1 :]:
        expired.unlink(missing_ok=True)
    return new


def copy_database(path: Path, copy: Path, is_over: IsOver = lambda: False) -> None:
    """Copy a database, log included, into the empty file `copy`, which then is all there is of it.

    Raises as `back_up`.
    """

    def step(*_pages_left: int) -> None:
        if is_over():
            raise Cancelled
        time.sleep(_REST_S)

    with (
        contextlib.closing(connect(path, 1.0, 1 << 20)) as source,
        contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as target,
    ):
        target.execute("PRAGMA synchronous=OFF")  # the caller brings the file to disk as a whole
        source.execute("BEGIN")  # one state of it from the first look on, whatever others write
        source.execute("SELECT 1 FROM sqlite_schema").fetchall()
        source.backup(target, pages=_STEP_PAGES, progress=step)
        target.execute("PRAGMA journal_mode=DELETE").fetchall()
        _require_order(target, is_over)


def _require_order(connection: sqlite3.Connection, is_over: IsOver) -> None:
    connection.set_progress_handler(is_over, _CHECK_STEPS)
    try:
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            raise Cancelled from error
        raise
    if found != "ok":
        raise sqlite3.DatabaseError(" ".join(str(found).split()))  # it has several lines
