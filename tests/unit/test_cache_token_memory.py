"""Recording in a thread, reading beside it, keeping within the limit; no fault reaches the chat."""

from __future__ import annotations

import contextlib
import sqlite3
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from token_support import VOCABULARY, Recorded, Talks, count, in_memory, on_disk

from edgespec.cache.database import connect, open_database, open_in_memory, transaction
from edgespec.cache.tokens.eviction import evict, token_bytes
from edgespec.cache.tokens.recorder import Recorder
from edgespec.cache.tokens.sequences import Recording
from edgespec.cache.tokens.token_memory import TokenMemory, open_token_memory


@pytest.fixture
def path(tmp_path: Path) -> Path:
    open_database(tmp_path / "edgespec.db").close()
    return tmp_path / "edgespec.db"


@contextlib.contextmanager
def memory_at(path: Path, *, learn: bool = True) -> Iterator[TokenMemory]:
    with open_database(path) as database:
        memory = open_token_memory(database, VOCABULARY, learn=learn)
        assert memory is not None
        with memory:
            yield memory


def next_token(memory: TokenMemory, suffix: list[int]) -> int | None:
    cursor = memory.model.lookup(suffix)
    return cursor.best().token if cursor else None


def test_what_was_recorded_is_found_at_once_and_after_a_restart(path: Path) -> None:
    with memory_at(path) as memory:
        assert next_token(memory, [0, 1, 2]) is None
        memory.record([3, 4], [0, 1, 2])
        assert memory.flush()
        assert next_token(memory, [0, 1, 2]) == 3
    with memory_at(path) as memory:
        assert next_token(memory, [0, 1, 2]) == 3
        assert memory.notice == ""


def test_closing_writes_what_is_waiting(path: Path) -> None:
    with memory_at(path) as memory:
        for number in range(20):
            memory.record([number, 100 + number, 200 + number], [])
    assert on_disk(path).count("sequences") == 20


def test_without_learning_nothing_is_written(path: Path) -> None:
    with memory_at(path) as memory:
        memory.record([0, 1, 2, 3], [])
    with memory_at(path, learn=False) as memory:
        memory.record([3, 4, 5, 6], [])
        assert memory.flush()
        assert next_token(memory, [0, 1, 2]) == 3
        assert next_token(memory, [3, 4, 5]) is None
    assert on_disk(path).count("sequences") == 1


def test_use_is_noted_with_the_next_recording(path: Path) -> None:
    with memory_at(path) as memory:
        memory.record([0, 1, 2, 3], [])
        memory.record([6, 7, 8, 9], [])
        memory.flush()
        cursor = memory.model.lookup([0, 1, 2])
        assert cursor is not None
        cursor.confirm()
        memory.record([3, 4, 5, 6], [])
    touched = dict(on_disk(path).connection.execute("SELECT id, touched FROM sequences"))
    assert touched == {1: 3, 2: 2, 3: 3}


def test_a_database_in_memory_remembers_nothing() -> None:
    with open_in_memory() as database:
        assert open_token_memory(database, VOCABULARY) is None


def test_a_lock_held_by_another_stops_neither_reading_nor_the_thread(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgespec.cache.tokens.recorder._BUSY_TIMEOUT_S", 0.05)
    with memory_at(path) as memory:
        memory.record([0, 1, 2, 3], [])
        memory.flush()
        blocker = sqlite3.connect(path, isolation_level=None)
        blocker.execute("BEGIN EXCLUSIVE")
        memory.record([3, 4, 5, 6], [])
        assert next_token(memory, [0, 1, 2]) == 3
        assert memory.flush()
        assert "not remembered (database is locked)" in memory.notice
        blocker.execute("ROLLBACK")
        blocker.close()
        memory.record([6, 7, 8, 9], [])
        memory.flush()
        assert next_token(memory, [6, 7, 8]) == 9
        assert next_token(memory, [3, 4, 5]) is None


def test_a_lock_that_is_let_go_in_time_costs_nothing(path: Path) -> None:
    with memory_at(path) as memory:
        blocker = sqlite3.connect(path, isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        memory.record([0, 1, 2, 3], [])
        time.sleep(0.1)
        blocker.execute("ROLLBACK")
        blocker.close()
        assert memory.flush()
        assert memory.notice == ""
        assert next_token(memory, [0, 1, 2]) == 3


def test_a_full_queue_drops_and_says_so(path: Path) -> None:
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    recorder = Recorder(path, VOCABULARY)
    for number in range(80):
        recorder.record(Recording([number, 1, 2]))
    blocker.execute("ROLLBACK")
    blocker.close()
    recorder.close()
    assert "too slow" in recorder.notice
    assert 0 < on_disk(path).count("sequences") < 80


def test_ids_that_are_none_are_not_recorded(path: Path) -> None:
    with memory_at(path) as memory:
        memory.record([1, -2, 3], [])
        memory.record([0, 1, 2, 3], [])
        memory.flush()
        assert "token ids" in memory.notice
    assert on_disk(path).count("sequences") == 1


def test_a_database_that_vanished_is_not_made_anew(path: Path) -> None:
    with open_database(path) as database:
        recorder = Recorder(path, VOCABULARY)
        for file in path.parent.iterdir():
            file.unlink()
        recorder.record(Recording([0, 1, 2, 3]))
        assert recorder.flush()
        assert "not remembered" in recorder.notice
        recorder.close()
        assert not path.exists()
        assert database.notice == ""


def test_every_file_belongs_to_its_owner(path: Path) -> None:
    with memory_at(path) as memory:
        memory.record(range(500), [])
        memory.flush()
        assert {"edgespec.db", "edgespec.db-wal"} <= {file.name for file in path.parent.iterdir()}
        assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in path.parent.iterdir())


def test_the_log_stays_small(path: Path) -> None:
    with memory_at(path) as memory:
        for number in range(40):
            memory.record([(number * 7919 + i * i) % 997 for i in range(400)], [])
            memory.flush()
        size = path.with_name("edgespec.db-wal").stat().st_size
    assert size < 4 << 20


# -- eviction ---------------------------------------------------------------------------------


def fill(recorded: Recorded, num_sequences: int, num_tokens: int = 400) -> list[int]:
    return [
        recorded.add([(n * 131 + i * (n + 3)) % 1000 for i in range(num_tokens)])
        for n in range(num_sequences)
    ]


def kept(recorded: Recorded) -> set[int]:
    return {number for (number,) in recorded.connection.execute("SELECT id FROM sequences")}


def test_the_unused_for_longest_go_first() -> None:
    recorded = in_memory()
    numbers = fill(recorded, 60)
    with transaction(recorded.connection):
        recorded.store.touch(numbers[:5])
    limit = token_bytes(recorded.connection) * 2 // 3
    assert evict(recorded.connection, limit) > 0
    assert token_bytes(recorded.connection) <= limit
    remaining = kept(recorded)
    assert set(numbers[:5]) <= remaining
    forgotten = sorted(set(numbers) - remaining)
    assert forgotten == numbers[5 : 5 + len(forgotten)]


def test_imported_text_makes_room_before_the_targets_own_answers() -> None:
    recorded = in_memory()
    answers = fill(recorded, 10)
    for number in range(50):
        recorded.add([(number * 37 + i * 5) % 1000 for i in range(400)], tier="statistics")
    evict(recorded.connection, token_bytes(recorded.connection) // 2)
    assert set(answers) <= kept(recorded)


def test_an_impossible_limit_forgets_everything_and_ends() -> None:
    recorded = in_memory()
    fill(recorded, 20)
    assert evict(recorded.connection, 1) == 20 * 400
    assert kept(recorded) == set()
    assert recorded.count("grams") == recorded.count("blocks") == 0


def test_a_sequence_whose_tier_is_lost_does_not_keep_eviction_busy_for_ever() -> None:
    recorded = in_memory()
    talks = Talks(recorded.connection)
    talks.add(talks.start("talk", "talk"), "user", "hello")
    recorded.add([1, 2, 3], conversation="talk")
    recorded.connection.execute("DELETE FROM scopes")
    recorded.connection.commit()
    assert evict(recorded.connection, 1) == 0
    assert recorded.count("messages") == 1


@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=30),
    st.lists(st.integers(1, 30), max_size=10),
    st.floats(0.3, 1.0),
)
def test_eviction_keeps_the_limit_the_order_and_the_index(
    lengths: list[int], used: list[int], share: float
) -> None:
    recorded = in_memory()
    for number, length in enumerate(lengths):
        recorded.add([(number * 17 + i * i) % 500 for i in range(length)])
    with transaction(recorded.connection):
        recorded.store.touch(used)
    order = [
        n for (n,) in recorded.connection.execute("SELECT id FROM sequences ORDER BY touched, id")
    ]
    limit = int(token_bytes(recorded.connection) * share)
    evict(recorded.connection, limit)
    remaining = kept(recorded)
    assert token_bytes(recorded.connection) <= limit or not remaining
    assert order[len(order) - len(remaining) :] == [n for n in order if n in remaining]
    expected = sum(max(length - 1, 0) for n, length in enumerate(lengths, 1) if n in remaining)
    assert recorded.count("grams") == expected


def test_a_recorder_keeps_its_database_within_the_limit(path: Path) -> None:
    with contextlib.closing(connect(path, 1.0, 1 << 20)) as connection:
        limit = token_bytes(connection) + 200_000
        recorder = Recorder(path, VOCABULARY, limit)
        for number in range(60):
            tokens = [(number * 131 + i * (number + 3)) % 1000 for i in range(500)]
            recorder.record(Recording(tokens))
            recorder.flush()
        recorder.close()
        assert recorder.notice == ""
        assert token_bytes(connection) <= limit
        [(oldest,)] = connection.execute("SELECT min(id) FROM sequences").fetchall()
        assert oldest > 1
        assert count(connection, "sequences") > 3
    assert path.stat().st_size < 4 * limit
