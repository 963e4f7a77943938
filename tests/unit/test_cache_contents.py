"""Damage that leaves the file in order: broken text, wrong types, tokens that are gone."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest
from token_support import VOCABULARY, Recorded, in_memory, on_disk

from edgespec.cache.contents import content_problems
from edgespec.cache.conversations import Conversations
from edgespec.cache.database import connect, open_database
from edgespec.cache.repair import repair
from edgespec.cache.said import latest_said
from edgespec.cache.sessions import recorded_answers
from edgespec.cache.transfer import export_lines
from edgespec.cache.upkeep import problems

SAID = "to the left \N{RIGHT-TO-LEFT OVERRIDE}and on"


def filled(path: Path) -> str:
    recorded = on_disk(path)
    conversations = Conversations(recorded.connection)
    known = conversations.start("title")
    conversations.add(known, "user", SAID)
    recorded.add(range(200), [7, 8], conversation=known)
    recorded.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    recorded.database.close()
    return known


def test_a_sound_database_has_none(tmp_path: Path) -> None:
    path = tmp_path / "edgespec.db"
    filled(path)
    with contextlib.closing(connect(path, 1.0, 1 << 20)) as connection:
        assert content_problems(connection) == []


def test_a_flipped_byte_of_a_text_is_found_and_mended(tmp_path: Path) -> None:
    """One that no word has: neither SQLite nor the search index sees it."""
    path = tmp_path / "edgespec.db"
    known = filled(path)
    content, sign = path.read_bytes(), "\N{RIGHT-TO-LEFT OVERRIDE}".encode()
    assert content.count(sign) == 1
    path.write_bytes(content.replace(sign, sign[:-1] + b"\x2e"))
    with contextlib.closing(connect(path, 1.0, 1 << 20)) as connection:
        assert problems(connection) == ["messages holds broken text"]
    (told,) = repair(path)
    assert told.startswith("saved 1 messages and 1 recorded sequences (0 lost")
    with open_database(path) as database:
        (said,) = Conversations(database.connection).messages(known)
        assert said.content.replace("\N{REPLACEMENT CHARACTER}", "") == "to the left .and on"
        assert len(list(export_lines(database.connection))) == 4
        assert problems(database.connection) == []


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("UPDATE blocks SET tokens = 'abcd' WHERE block = 1", "blocks holds wrong values"),
        ("UPDATE sequences SET num_tokens = 'many'", "sequences holds wrong values"),
        ("UPDATE sequences SET num_tokens = 201", "bytes of recorded tokens instead of"),
        ("UPDATE blocks SET tokens = substr(tokens, 5) WHERE block = 1", "bytes of recorded"),
        ("DELETE FROM blocks WHERE block = 2", "bytes of recorded tokens instead of"),
        ("UPDATE facts SET value = x'00ff'", "facts holds wrong values"),
    ],
)
def test_what_sqlite_does_not_check_is_a_problem(statement: str, expected: str) -> None:
    recorded = in_memory()
    recorded.add(range(200))
    recorded.connection.execute("INSERT INTO facts VALUES ('k', 'k', '{}', 1.0)")
    assert content_problems(recorded.connection) == []
    recorded.connection.execute(statement)
    (problem,) = content_problems(recorded.connection)
    assert expected in problem
    recorded.database.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE blocks SET tokens = 'abcd' WHERE block = 1",
        "DELETE FROM blocks WHERE block = 2",
        "UPDATE sequences SET num_tokens = 'many'",
        "UPDATE sequences SET num_context = -4",
        "UPDATE sequences SET first_block = x'00'",
        "UPDATE sequences SET num_tokens = 9223372036854775807",
    ],
)
def test_damaged_tokens_are_an_error_of_the_database(statement: str) -> None:
    """Not one that nobody expects, and not a sequence of other tokens."""
    recorded = in_memory()
    number = recorded.add(range(200), [1])
    recorded.connection.execute(statement)
    recorded.connection.commit()
    for attempt in (
        lambda: recorded.store.remove(number),
        lambda: recorded.store.index(number),
        lambda: list(export_lines(recorded.connection)),
        lambda: list(recorded_answers(recorded.connection, VOCABULARY, 9)),
        lambda: list(latest_said(recorded.connection, VOCABULARY, 1000)),
    ):
        with pytest.raises(sqlite3.DatabaseError, match="recorded tokens"):
            attempt()
    recorded.database.close()


def test_a_sequence_that_is_gone_has_no_tokens() -> None:
    recorded: Recorded = in_memory()
    assert len(recorded.store.read(1, 5)) == 0
    recorded.database.close()
