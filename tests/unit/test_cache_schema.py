"""Is the schema the newest? Answered with one query, and as sqlite-utils would."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlite_utils

from edgespec.cache.migrations import migrations, upgrade
from edgespec.cache.schema import MIGRATION_SET, NAMES, is_newest

INSERT = "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES (?, ?, '')"


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    yield connection
    connection.close()


@pytest.fixture
def migrated(connection: sqlite3.Connection) -> sqlite3.Connection:
    upgrade(sqlite_utils.Database(connection), ":memory:")
    return connection


def test_the_names_are_those_of_the_migrations_in_order(connection: sqlite3.Connection) -> None:
    pending = migrations.pending(sqlite_utils.Database(connection))
    assert tuple(migration.name for migration in pending) == NAMES


def test_a_migrated_database_is_the_newest(migrated: sqlite3.Connection) -> None:
    assert is_newest(migrated)
    assert migrations.pending(sqlite_utils.Database(migrated)) == []


def test_an_empty_one_is_not_and_stays_empty(connection: sqlite3.Connection) -> None:
    assert not is_newest(connection)
    assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


@pytest.mark.parametrize("name", NAMES)
def test_one_that_lacks_a_migration_is_not(migrated: sqlite3.Connection, name: str) -> None:
    migrated.execute("DELETE FROM _sqlite_migrations WHERE name = ?", [name])
    assert not is_newest(migrated)
    pending = migrations.pending(sqlite_utils.Database(migrated))
    assert [migration.name for migration in pending] == [name]


def test_one_of_a_newer_edgespec_is_not(migrated: sqlite3.Connection) -> None:
    migrated.execute(INSERT, [MIGRATION_SET, "m999_unheard_of"])
    assert not is_newest(migrated)


def test_migrations_of_others_do_not_count(migrated: sqlite3.Connection) -> None:
    migrated.execute(INSERT, ["another", "m999_unheard_of"])
    assert is_newest(migrated)
    migrated.execute("UPDATE _sqlite_migrations SET migration_set = 'another'")
    assert not is_newest(migrated)


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_bytes(b"no database " * 100)
    connection = sqlite3.connect(path)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        is_newest(connection)
    connection.close()


def test_only_a_database_that_must_change_needs_the_migrations(tmp_path: Path) -> None:
    path = tmp_path / "edgespec.db"
    program = (
        "import pathlib, sys; from edgespec.cache.database import open_database\n"
        f"open_database(pathlib.Path({str(path)!r})).close(); print('sqlite_utils' in sys.modules)"
    )

    def imports_them() -> str:
        return subprocess.check_output([sys.executable, "-c", program], text=True).strip()

    assert imports_them() == "True"
    assert imports_them() == "False"
