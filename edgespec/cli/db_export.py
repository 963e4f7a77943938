"""The parts of `edgespec db export` and `import` that write and read exports."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import click

from edgespec.cache.chats.transfer import export_lines, import_lines, is_export
from edgespec.cache.tokens.eviction import DEFAULT_LIMIT, evict
from edgespec.errors import StorageError, UsageError
from edgespec.files.scratch import taking_the_place_of


def export_to(connection: sqlite3.Connection, file: Path) -> None:
    """Write an export that is there in full or not at all, readable by its owner only."""
    try:
        with taking_the_place_of(file) as scratch, scratch.open("w", encoding="utf-8") as output:
            output.writelines(export_lines(connection))
    except OSError as error:
        raise StorageError(
            f"cannot write {file}: {error.strerror or error}", "export to another place"
        ) from error


def import_export(connection: sqlite3.Connection, path: Path) -> None:
    """Take in an export and say what it brought; raises UsageError, sqlite3.Error."""
    try:
        with path.open(encoding="utf-8") as lines:
            carried = import_lines(connection, lines)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 to its end", "export it again") from error
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}", "try again") from error
    finally:
        evict(connection, DEFAULT_LIMIT)
    click.echo(
        f"{path.name}: {counted(carried.num_conversations, 'conversation')} and"
        f" {counted(carried.num_sequences, 'recorded answer')} added,"
        f" {carried.num_known} known already",
        err=True,
    )


def is_export_file(path: Path) -> bool:
    """True for a file that `export_to` wrote."""
    try:
        with path.open("rb") as file:  # bytes: what follows the first line may be broken
            return is_export(file.readline(4096).decode())
    except (OSError, UnicodeDecodeError):
        return False


def counted(number: int, noun: str) -> str:
    """A number with what it counts."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
