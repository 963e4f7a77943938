"""The database: facts round-trip, and no fault of the file costs an answer."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgespec.cache.database import open_database, open_in_memory
from edgespec.cache.facts import Facts
from edgespec.errors import StorageError

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=8,
)


@settings(max_examples=40)  # each makes a database
@given(st.dictionaries(st.text(), json_values), st.text(), st.text())
def test_facts_round_trip(value: dict[str, object], kind: str, key: str) -> None:
    with open_in_memory() as database:
        facts = Facts(database)
        assert facts.get(kind, key) is None
        assert facts.put(kind, key, {"old": 1}) and facts.put(kind, key, value)
        assert facts.get(kind, key) == value
        assert facts.get(kind + "x", key) is None
        assert facts.forget(kind) == 1
        assert facts.get(kind, key) is None


def test_facts_survive_a_restart_and_belong_to_their_owner(tmp_path: Path) -> None:
    path = tmp_path / "new" / "edgespec.db"
    with open_database(path) as database:
        assert database.notice == ""
        assert Facts(database).put("k", "a", {"v": [1, 2]})
    with open_database(path) as database:
        assert Facts(database).get("k", "a") == {"v": [1, 2]}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("place", ["folder", "file/edgespec.db", "/proc/edgespec/edgespec.db"])
def test_where_there_can_be_no_file_memory_does(tmp_path: Path, place: str) -> None:
    """A folder in its place, a file in that of its folder, and where nobody can write."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with open_database(tmp_path / place) as database:
        assert "nothing is remembered" in database.notice
        assert Facts(database).put("k", "a", {"v": 1})
        assert Facts(database).get("k", "a") == {"v": 1}


def test_a_newer_schema_is_refused_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / "edgespec.db"
    open_database(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES (?, ?, ?)",
            ("edgespec", "m999_from_the_future", "2030-01-01"),
        )
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StorageError, match="newer EdgeSpec"):
        open_database(path)
    assert path.read_bytes() == before


def test_a_lock_held_elsewhere_costs_the_fact_not_the_answer(tmp_path: Path) -> None:
    path = tmp_path / "edgespec.db"
    with open_database(path) as database:
        facts = Facts(database)
        assert facts.put("k", "a", {"v": 1})
        database.connection.execute("PRAGMA busy_timeout=50")
        blocker = sqlite3.connect(path)
        blocker.execute("BEGIN IMMEDIATE")
        assert not facts.put("k", "a", {"v": 2})
        assert facts.get("k", "a") == {"v": 1}
        blocker.rollback()
        blocker.close()
        assert facts.put("k", "a", {"v": 3})


def test_the_hot_queries_are_pinned() -> None:
    statements: list[str] = []
    with open_in_memory() as database:
        database.connection.set_trace_callback(statements.append)
        Facts(database).get("kind", "key")
    assert statements == ["SELECT value FROM facts WHERE kind = 'kind' AND key = 'key'"]
