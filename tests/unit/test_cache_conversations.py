"""Conversations: kept in order, found by word, and gone with all they taught when forgotten."""

from __future__ import annotations

import doctest
import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from token_support import Recorded, in_memory, on_disk, votes

from edgespec.cache.chats import conversations as conversations_module
from edgespec.cache.chats.conversations import Conversations
from edgespec.cache.database import transaction
from edgespec.cache.upkeep.backup import backups, write_backup
from edgespec.cache.upkeep.forget import Forgetting, Forgotten


def with_clock(recorded: Recorded, *times: float) -> Conversations:
    """Conversations dated by `times`, the last of them for ever."""
    clock = itertools.chain(times, itertools.repeat(times[-1]))
    return Conversations(recorded.connection, lambda: next(clock))


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.text()), max_size=8))
def test_messages_come_back_as_they_were_said(turns: list[tuple[str, str]]) -> None:
    turns = [(role, text.encode(errors="replace").decode()) for role, text in turns]
    conversations = Conversations(in_memory().connection)
    first, second = conversations.start("one"), conversations.start("two")
    for role, content in turns:
        assert conversations.add(first, role, content)
    conversations.add(second, "user", "other")
    assert [(m.role, m.content) for m in conversations.messages(first)] == turns
    assert [m.content for m in conversations.messages(second)] == ["other"]


def test_a_clock_that_goes_backwards_moves_nothing() -> None:
    recorded = in_memory()
    conversations = with_clock(recorded, 1000, 900, 800, 700, 600)
    first = conversations.start("first")
    conversations.add(first, "user", "a")
    second = conversations.start("second")
    conversations.add(second, "user", "b")
    conversations.add(second, "assistant", "c")
    assert [m.content for m in conversations.messages(second)] == ["b", "c"]
    assert [known.id for known in conversations.all()] == [second, first]
    conversations.add(first, "assistant", "d")
    assert [known.id for known in conversations.all()] == [first, second]
    assert [known.num_messages for known in conversations.all()] == [2, 2]
    assert [known.id for known in conversations.all(limit=1)] == [first]


def test_nothing_is_said_in_a_conversation_that_is_not_there() -> None:
    conversations = Conversations(in_memory().connection)
    assert not conversations.add("nobody", "user", "hello")
    assert not conversations.rename("nobody", "x")
    known = conversations.start("old")
    assert conversations.rename(known, "new")
    assert [c.title for c in conversations.all()] == ["new"]


def test_every_word_must_be_in_a_hit() -> None:
    conversations = Conversations(in_memory().connection)
    known = conversations.start("weather")
    conversations.add(known, "user", "Will it rain in Berlin tomorrow?")
    conversations.add(known, "assistant", "Rain is likely in Hamburg.")
    hits = conversations.search("rain berlin")
    assert [(hit.conversation, hit.title, hit.role) for hit in hits] == [(known, "weather", "user")]
    assert hits[0].snippet == "Will it [rain] in [Berlin] tomorrow?"
    assert len(conversations.search("rain")) == 2
    assert len(conversations.search("rain", limit=1)) == 1
    assert conversations.search("snow") == conversations.search("   ") == []


@given(st.text())
def test_whatever_is_searched_for_is_no_syntax(words: str) -> None:
    conversations = Conversations(in_memory().connection)
    conversations.add(conversations.start("t"), "user", "plain words only")
    words = words.encode(errors="replace").decode()
    assert all("[" in hit.snippet for hit in conversations.search(words))


def test_docstring_examples_hold() -> None:
    assert doctest.testmod(conversations_module).failed == 0


# -- forgetting -------------------------------------------------------------------------------


def test_a_forgotten_conversation_takes_along_what_it_taught() -> None:
    recorded = in_memory()
    conversations = Conversations(recorded.connection)
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
    assert [known.id for known in conversations.all()] == [kept]
    assert conversations.search(gone) == []
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
    assert {known.id for known in conversations.all()} == {revived, new}
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
    conversations = Conversations(recorded.connection)
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
    assert conversations.search("hello") == []
    assert recorded.reader().lookup([1, 2, 3]) is None


@pytest.mark.parametrize("way", ["conversation", "before", "everything"])
def test_no_trace_is_left_in_any_file(tmp_path: Path, way: str) -> None:
    path = tmp_path / "edgespec.db"
    recorded = on_disk(path)
    conversations = with_clock(recorded, 100)
    known = conversations.start("Xylographa")
    for number in range(30):
        conversations.add(known, "user", f"Quetzalcoatl {number} " + "filler words " * 20)
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
        for trace in (b"uetzalcoatl", b"ylographa", b"QQQQQQQQ", known.encode()):
            assert trace not in content, (file.name, trace)
    recorded.database.close()
