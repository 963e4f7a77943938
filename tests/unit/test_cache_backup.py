"""Backups: sound, whole or not there, the last three; made by themselves, at nobody's expense."""

from __future__ import annotations

import contextlib
import os
import resource
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from filled_database import overwrite, pages_of
from token_support import VOCABULARY, Recorded, count, on_disk

from edgespec.cache.tokens.recorder import Recorder
from edgespec.cache.tokens.sequences import Recording
from edgespec.cache.upkeep.backup import KEPT, back_up, backups, is_due
from edgespec.cache.upkeep.lock import upkeep_lock
from edgespec.errors import BusyError, Cancelled

NUM_SEQUENCES = 60


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "edgespec.db"


@pytest.fixture
def recorded(path: Path) -> Iterator[Recorded]:
    made = on_disk(path)
    for number in range(NUM_SEQUENCES):
        made.add([(number * 131 + i * (number + 3)) % 1000 for i in range(400)])
    yield made
    made.database.close()


def names(path: Path) -> list[str]:
    return [backup.name for backup in backups(path)]


def num_sequences(backup: Path) -> int:
    with contextlib.closing(sqlite3.connect(f"{backup.as_uri()}?immutable=1", uri=True)) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return count(copy, "sequences")


def test_a_backup_is_a_database_of_its_owners_alone(recorded: Recorded, path: Path) -> None:
    backup = back_up(path)
    assert backup.name == "edgespec.db.backup-000001"
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    assert num_sequences(backup) == NUM_SEQUENCES
    assert sorted(file.name for file in path.parent.iterdir() if "backup" in file.name) == [
        backup.name
    ]


def test_the_last_ones_are_kept_whatever_the_clock_says(recorded: Recorded, path: Path) -> None:
    for number in range(KEPT + 2):
        backup = back_up(path)
        os.utime(backup, (1e9 - number, 1e9 - number))
    assert names(path) == [f"edgespec.db.backup-{number:06}" for number in (5, 4, 3)]


def test_a_backup_is_due_once_a_day(recorded: Recorded, path: Path) -> None:
    assert is_due(path)
    backup = back_up(path)
    assert not is_due(path)
    for age_s in (90_000, -90_000):
        os.utime(backup, (time.time() - age_s,) * 2)
        assert is_due(path)


def test_a_damaged_database_drives_out_no_backup(recorded: Recorded, path: Path) -> None:
    back_up(path)
    recorded.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    overwrite(path, pages_of(path, "blocks")[-1:])
    before = names(path)
    for _ in range(KEPT + 1):
        with pytest.raises(sqlite3.DatabaseError) as caught:
            back_up(path)
        assert "\n" not in str(caught.value)
    assert names(path) == before and num_sequences(backups(path)[0]) == NUM_SEQUENCES
    assert not list(path.parent.glob(".*.part*"))


@pytest.mark.parametrize("num_asked", [0, 1, 2])
def test_one_that_is_to_end_ends_and_leaves_nothing(
    recorded: Recorded, path: Path, num_asked: int
) -> None:
    asked: list[None] = []

    def is_over() -> bool:
        asked.append(None)
        return len(asked) > num_asked

    with pytest.raises(Cancelled):
        back_up(path, is_over)
    assert len(asked) == num_asked + 1
    assert names(path) == [] and not list(path.parent.glob(".*.part*"))


def test_without_room_there_is_none_and_no_half(recorded: Recorded, path: Path) -> None:
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, usual[1]))  # as a full disk does
    try:
        with pytest.raises(sqlite3.OperationalError):
            back_up(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert names(path) == [] and not list(path.parent.glob(".*.part*"))


def test_others_write_meanwhile_and_the_copy_is_of_one_moment(
    recorded: Recorded, path: Path
) -> None:
    is_over = threading.Event()

    def write() -> None:
        other = on_disk(path)
        while not is_over.is_set():
            other.add([1, 2, 3])
        other.database.close()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(3):
            assert num_sequences(back_up(path)) >= NUM_SEQUENCES
    finally:
        is_over.set()
        writer.join()


def test_beside_other_upkeep_there_is_none(recorded: Recorded, path: Path) -> None:
    with upkeep_lock(path), pytest.raises(BusyError, match="backs it up"):
        back_up(path, wait_s=0.0)


# -- by itself --------------------------------------------------------------------------------


def record_and_close(path: Path) -> str:
    """Record an answer in a run of its own; the notice at its end."""
    recorder = Recorder(path, VOCABULARY)
    num_before = len(names(path))
    recorder.record(Recording([1, 2, 3, 4]))
    assert recorder.flush() and len(names(path)) == num_before
    recorder.close()
    return recorder.notice


def test_the_end_of_a_run_that_recorded_something_makes_one(recorded: Recorded, path: Path) -> None:
    back_up(path)  # so that none is due
    Recorder(path, VOCABULARY).close()
    assert len(names(path)) == 1
    assert record_and_close(path) == "" and len(names(path)) == 2
    assert num_sequences(backups(path)[0]) == NUM_SEQUENCES + 1


def test_a_run_of_days_makes_one_after_a_turn(recorded: Recorded, path: Path) -> None:
    os.utime(back_up(path), (1e9, 1e9))
    recorder = Recorder(path, VOCABULARY)
    recorder.record(Recording([1, 2, 3, 4]))
    deadline = time.monotonic() + 30
    while len(names(path)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    recorder.close()
    assert len(names(path)) == 2, "nothing was recorded since"


def test_one_that_would_keep_a_quit_waiting_is_left(
    recorded: Recorded, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up(path)
    monkeypatch.setattr("edgespec.cache.tokens.recorder._LAST_BACKUP_S", -1.0)
    assert record_and_close(path) == "" and len(names(path)) == 1


def test_what_stops_a_backup_is_one_line_at_most(
    recorded: Recorded, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with upkeep_lock(path):
        assert record_and_close(path) == "" and names(path) == []
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL

    def fail(*_arguments: object, **_options: object) -> None:
        raise full

    monkeypatch.setattr("edgespec.cache.tokens.recorder.back_up", fail)
    expected = "the database could not be backed up (database or disk is full)"
    assert record_and_close(path) == expected
    monkeypatch.setattr(full, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    assert record_and_close(path).startswith("the database is damaged")
