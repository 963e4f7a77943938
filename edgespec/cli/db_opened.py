"""The user's database for a command: opened, its errors told in one line, backed up after."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import click

from edgespec.cache.database import DAMAGE, connect, is_damage, open_database
from edgespec.cache.upkeep.backup import back_up
from edgespec.cache.upkeep.check import problems
from edgespec.errors import BusyError, StorageError
from edgespec.paths import user_paths

_BUSY_TIMEOUT_S = 10.0
_CACHE_BYTES = 32 << 20


@contextlib.contextmanager
def opened() -> Iterator[tuple[sqlite3.Connection, Path]]:
    """A connection to the user's database; what fails in the block becomes one line.

    Raises StorageError.
    """
    path = user_paths().database
    with open_database(path) as database:
        if database.path is None:
            raise StorageError(database.notice, "free it, or set EDGESPEC_HOME to another folder")
        if database.notice:
            click.echo(database.notice, err=True)
    with (
        errors_told(path),
        contextlib.closing(connect(path, _BUSY_TIMEOUT_S, _CACHE_BYTES)) as connection,
    ):
        yield connection, path


@contextlib.contextmanager
def errors_told(path: Path) -> Iterator[None]:
    """Turn what SQLite and the file system raise into one line and what to do."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"the database {path} cannot be used ({error.strerror or error})",
            "free disk space or set EDGESPEC_HOME to another folder, then try again",
        ) from error
    except DAMAGE as error:
        if is_damage(error):
            raise damaged(path, _short(error)) from error
        raise StorageError(
            f"the database {path} cannot be used ({error})",
            "end other EdgeSpec commands or free disk space, then try again",
        ) from error


def require_sound(connection: sqlite3.Connection, path: Path) -> None:
    """A damaged database cannot give up a part, and its backups are needed to mend it."""
    if problems(connection):
        raise damaged(path)


def damaged(path: Path, why: str = "") -> StorageError:
    """The error of a damaged database."""
    problem = f"the database {path} is damaged{why and f' ({why})'}"
    return StorageError(problem, "run `edgespec db check --repair`")


def back_up_or_tell(path: Path) -> None:
    """What was imported is kept twice, if that can be."""
    try:
        back_up(path)
    except (OSError, BusyError, *DAMAGE) as error:
        click.echo(f"the database could not be backed up ({error})", err=True)


def _short(error: Exception) -> str:
    """What is wrong, without the text that it quotes, which may be a long message of the user's."""
    return str(error).split(" with text ")[0][:200]
