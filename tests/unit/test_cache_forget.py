"""A conversation that is forgotten is gone with all it taught, in every file."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from token_support import Recorded, Talks, in_memory, on_disk, votes

from edgespec.cache.chats.search import search
from edgespec.cache.database import transaction
from edgespec.cache.upkeep.backup import backups, write_backup
from edgespec.cache.upkeep.forget import Forgetting, Forgotten


def with_clock(recorded: Recorded, *times: float) -> Talks:
    """Chats dated by `times`, the last of them for ever."""
    clock = itertools.chain(times, itertools.repeat(times[-1]))
    return Talks(recorded.connection, lambda: next(clock))


def test_a_forgotten_conversation_takes_along_what_it_taught() -> None:
    recorded = in_memory()
    conversations = Talks(recorded.connection)
    kept, gone = conversations.start("kept"), conversations.start("gone")
    for known in (kept, gone):
        conversations.add(known, "user", f"secret of {known}")
    recorded.add([1, 2, 3, 4], conversation=gone)
    recorded.add([1, 2, 3, 5], conversation=gone)
    recorded.add([1, 2, 3, 6], conversation=kept)
    forgotten = Forgetting(recorded.connection).conversation(gone)
    assert forgotten == Forgotten(num_conversations=1, num_messages=1, num_tokens=8)
    cursor = recorded.reader().lookup([1, 2, 3])
    assert cursor is not None
    assert set(votes(cursor)) == {6}
    assert conversations.names() == [kept]
    assert search(recorded.connection, gone) == []
    assert recorded.count("grams") == 3
    assert Forgetting(recorded.connection).conversation(gone) == Forgotten()


def test_forgetting_what_is_old_keeps_conversations_spoken_in_since() -> None:
    recorded = in_memory()
    conversations = with_clock(recorded, 100, 100, 100, 100, 500, 600, 600)
    old, revived = conversations.start("old"), conversations.start("revived")
    conversations.add(old, "user", "a")
    conversations.add(revived, "user", "b")
    conversations.add(revived, "user", "c")
    new = conversations.start("new")
    for known in (old, revived, new):
        recorded.add([1, 2, 3], conversation=known)
    unowned = recorded.add([7, 8, 9])
    with transaction(recorded.connection):
        recorded.connection.execute("UPDATE sequences SET created = 100 WHERE id < ?", (unowned,))
        recorded.connection.execute("UPDATE sequences SET created = 50 WHERE id = ?", (unowned,))
    forgotten = Forgetting(recorded.connection).before(400)
    assert forgotten == Forgotten(num_conversations=1, num_messages=1, num_tokens=6)
    assert set(conversations.names()) == {revived, new}
    owners = recorded.connection.execute("SELECT conversation FROM sequences").fetchall()
    assert {owner for (owner,) in owners} == {revived, new}


def test_many_old_sequences_are_forgotten_in_parts() -> None:
    recorded = in_memory()
    for number in range(200):
        recorded.add([number % 50, number % 7, 3])
    forgotten = Forgetting(recorded.connection).before(4e9)
    assert forgotten.num_tokens == 600
    assert recorded.count("sequences") == recorded.count("grams") == recorded.count("blocks") == 0


def test_forgetting_everything_keeps_only_measurements() -> None:
    recorded = in_memory()
    conversations = Talks(recorded.connection)
    conversations.add(conversations.start("t"), "user", "hello")
    recorded.add([1, 2, 3, 4])
    with recorded.connection as connection:
        for kind in ("calibration", "model"):
            connection.execute("INSERT INTO facts VALUES (?, 'k', '{}', 0)", (kind,))
        for table in ("ngram_caches", "calibrations", "costs"):
            connection.execute(f"INSERT INTO {table} VALUES ('t', 'd', x'00', 0)")
    assert Forgetting(recorded.connection).everything() == Forgotten(1, 1, 4)
    counts = {
        table: recorded.count(table)
        for table in ("messages", "conversations", "sequences", "blocks", "grams", "files")
    }
    assert set(counts.values()) == {0}
    assert recorded.count("ngram_caches") == recorded.count("calibrations") == 0
    assert recorded.count("costs") == 1
    assert recorded.connection.execute("SELECT kind FROM facts").fetchall() == [("model",)]
    assert search(recorded.connection, "hello") == []
    assert recorded.reader().lookup([1, 2, 3]) is None


@pytest.mark.parametrize("way", ["conversation", "before", "everything"])
def test_no_trace_is_left_in_any_file(tmp_path: Path, way: str) -> None:
    path = tmp_path / "edgespec.db"
    recorded = on_disk(path)
    conversations = with_clock(recorded, 100)
    known = conversations.start("Xylographa")
    for number in range(30):
        conversations.add(known, "user", f"Quetzalcoatl {number} 羽毛蛇神 " + "filler words " * 20)
    marked = [0x51515151] * 40
    recorded.add([1, 2, *marked], conversation=known)
    write_backup(path)
    for name in ("schema-1.backup", "recovered-20310101-000000", "salvaged-20300101-000000"):
        (tmp_path / f"edgespec.db.{name}").write_bytes(b"Quetzalcoatl")
    forgetting = Forgetting(recorded.connection)
    if way == "conversation":
        forgetting.conversation(known)
    elif way == "before":
        forgetting.before(1e12)
    else:
        forgetting.everything()
    forgetting.purge(path)
    (backup,) = backups(path)
    assert backup.name == "edgespec.db.backup-000002", "without what was forgotten"
    for file in tmp_path.iterdir():
        content = file.read_bytes()
        traces = ("uetzalcoatl", "毛蛇", "ylographa", "QQQQQQQQ", known)
        for trace in (each.encode() for each in traces):
            assert trace not in content, (file.name, trace)
    recorded.database.close()
