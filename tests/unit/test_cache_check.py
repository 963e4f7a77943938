"""What is there, and damage that leaves the file in order: broken text, tokens that are gone."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest
from token_support import OTHER_VOCABULARY, VOCABULARY, Recorded, Talks, in_memory, on_disk

from edgespec.cache.chats.transfer import export_lines
from edgespec.cache.database import connect, open_database
from edgespec.cache.tokens.answers import latest_answers
from edgespec.cache.tokens.eviction import token_bytes
from edgespec.cache.upkeep.check import content_problems, problems
from edgespec.cache.upkeep.repair import repair
from edgespec.cache.upkeep.usage import compact, statistics

SAID = "to the left \N{RIGHT-TO-LEFT OVERRIDE}and on"


def filled(path: Path) -> str:
    recorded = on_disk(path)
    conversations = Talks(recorded.connection)
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
    begun, told = repair(path)
    assert begun.startswith("there is no sound backup")
    assert told.startswith("added 1 messages and 1 recorded sequences")
    with open_database(path) as database:
        ((_, said),) = Talks(database.connection).turns(known)
        assert said.replace("\N{REPLACEMENT CHARACTER}", "") == "to the left .and on"
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
        lambda: list(latest_answers(recorded.connection, VOCABULARY, 1000)),
    ):
        with pytest.raises(sqlite3.DatabaseError, match="recorded tokens"):
            attempt()
    recorded.database.close()


def test_a_sequence_that_is_gone_has_no_tokens() -> None:
    recorded: Recorded = in_memory()
    assert len(recorded.store.read(1, 5)) == 0
    recorded.database.close()


def test_statistics_count_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "edgespec.db"
    recorded = on_disk(path)
    recorded.add([1, 2, 3])
    recorded.add([4, 5], tier="statistics")
    recorded.add([6], vocabulary=OTHER_VOCABULARY)
    conversations = Talks(recorded.connection)
    conversations.add(conversations.start("t"), "user", "hello")
    stats = statistics(recorded.connection, path)
    assert [(t.vocabulary, t.tier, t.num_sequences, t.num_tokens) for t in stats.tiers] == [
        ("tiny", "model", 1, 3),
        ("tiny", "statistics", 1, 2),
        ("other", "model", 1, 1),
    ]
    assert (stats.num_tokens, stats.num_conversations, stats.num_messages) == (6, 1, 1)
    assert stats.token_bytes == 150 and path.stat().st_size <= stats.file_bytes


def test_compacting_frees_what_was_forgotten_and_keeps_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "edgespec.db"
    recorded = on_disk(path)
    for number in range(200):
        recorded.add([(number * 131 + i * (number + 3)) % 1000 for i in range(400)])
    recorded.add([900, 901, 902, 903])
    before = path.stat().st_size
    limit = 1 << 20
    freed = compact(recorded.connection, path, limit)
    assert freed > 0
    assert token_bytes(recorded.connection) <= limit and path.stat().st_size < before
    assert path.with_name("edgespec.db-wal").stat().st_size == 0
    cursor = recorded.reader().lookup([900, 901, 902])
    assert cursor is not None and cursor.best().token == 903
    assert problems(recorded.connection) == []
