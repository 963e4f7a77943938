"""Damaged databases kept beside the one in use: NAME.damaged-DATE, and NAME.recovered-DATE later.

The second name says that what could be read of one is in the database again. Nothing but
`edgespec db forget` deletes either.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path

from edgespec.cache.database import DAMAGE, is_damage, open_migrated
from edgespec.cache.upkeep.backup import backups, copy_database
from edgespec.cache.upkeep.check import problems
from edgespec.errors import StorageError
from edgespec.files.scratch import taking_the_place_of

_PARTS = ("", "-wal")
"""A database with its log; the log holds what was committed last."""

_UNREAD, *_READ = "damaged-*", "recovered-*", "salvaged-*"
"""The last is what earlier versions called the second."""


def replace_damaged(path: Path) -> tuple[Path, Path | None]:
    """Put a damaged database in quarantine and the newest sound backup in its place.

    The new name of the first, and the second; where there is none, a new database is begun. For a
    caller that holds the lock. Interrupted at any moment, the damaged one has one of its names.
    Raises OSError, sqlite3.Error.
    """
    for backup in backups(path):
        try:
            with taking_the_place_of(path) as scratch:
                _restore(backup, scratch)
                return _quarantine(path), backup
        except (StorageError, *DAMAGE) as error:  # of a newer EdgeSpec, or not sound
            if not isinstance(error, StorageError) and not is_damage(error):
                raise
    damaged = _quarantine(path)
    path.unlink(missing_ok=True)
    open_migrated(path).close()
    return damaged, None


def mark_recovered(path: Path, damaged: Path) -> Path:
    """Note that `damaged`, once the database at `path`, was read; its new name; raises OSError."""
    date = damaged.name.removeprefix(f"{path.name}.damaged-")
    new = _free_name(path, f"recovered-{date}")
    for part in reversed(_PARTS):
        with contextlib.suppress(FileNotFoundError):
            _named(damaged, part).replace(_named(new, part))
    _named(damaged, "-shm").unlink(missing_ok=True)
    return new


def unread(path: Path) -> list[Path]:
    """Damaged files of the database at `path` that hold what it may not, the oldest first."""
    found = path.parent.glob(f"{path.name}.{_UNREAD}")
    return sorted(file for file in found if not file.name.endswith(("-wal", "-shm")))


def delete_damaged(path: Path, *, everything: bool) -> None:
    """Delete damaged files whose content is in the database at `path`, or all; raises OSError."""
    for kind in (_UNREAD, *_READ) if everything else _READ:
        for file in path.parent.glob(f"{path.name}.{kind}"):  # a log without its database, too
            file.unlink(missing_ok=True)


def _restore(backup: Path, scratch: Path) -> None:
    """Make `scratch` what `backup` holds, in the newest schema; raises if that is not sound."""
    copy_database(backup, scratch)
    with contextlib.closing(open_migrated(scratch, backs_up=False)) as connection:
        found = problems(connection)
    if found:
        raise sqlite3.DatabaseError(found[0])


def _quarantine(path: Path) -> Path:
    """Give a database and its log another name; where there are links, it keeps its own, too.

    So there is a file of this name until another takes its place, but no log that would be taken
    for the other's.
    """
    again = (known for known in unread(path) if _is_unfinished(path, known))
    new = next(again, None) or _free_name(path, "damaged-" + time.strftime("%Y%m%d-%H%M%S"))
    try:
        for part in _PARTS:
            with contextlib.suppress(FileExistsError, FileNotFoundError):  # done; no log
                os.link(_named(path, part), _named(new, part))
    except OSError:  # a file system without links
        for part in reversed(_PARTS):
            with contextlib.suppress(FileNotFoundError):
                _named(path, part).replace(_named(new, part))
    for part in ("-wal", "-shm"):
        _named(path, part).unlink(missing_ok=True)
    return new


def _is_unfinished(path: Path, known: Path) -> bool:
    """True if `known` is another name of this database, from an attempt that was interrupted."""
    log, other = _named(path, "-wal"), _named(known, "-wal")
    is_same_log = not (log.exists() and other.exists()) or log.samefile(other)
    return is_same_log and path.exists() and known.samefile(path)


def _free_name(path: Path, suffix: str) -> Path:
    new, number = path.with_name(f"{path.name}.{suffix}"), 1
    while new.exists():  # twice in one second, or the clock went backwards
        number += 1
        new = path.with_name(f"{path.name}.{suffix}-{number}")
    return new


def _named(file: Path, part: str) -> Path:
    return file.with_name(file.name + part)
