"""Statistics, compaction, and mending: an index anew, a damaged file replaced by what it held."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from pathlib import Path

import pytest
from token_support import OTHER_VOCABULARY, VOCABULARY, Recorded, in_memory, on_disk

from edgespec.cache.aside import set_aside
from edgespec.cache.conversations import Conversations
from edgespec.cache.database import connect, open_database
from edgespec.cache.facts import Facts
from edgespec.cache.lookup import TokenReader
from edgespec.cache.memory import open_token_memory
from edgespec.cache.pairs import PairStore
from edgespec.cache.repair import rebuild_index, repair
from edgespec.cache.upkeep import compact, problems, statistics
from edgespec.errors import BusyError

PAGE = 4096


def filled(path: Path, num_sequences: int = 120) -> dict[str, list[int]]:
    """A database with some of everything; the recorded sequences by conversation."""
    recorded = on_disk(path)
    conversations = Conversations(recorded.connection)
    stream = random.Random(5)
    said: dict[str, list[int]] = {}
    for number in range(num_sequences):
        known = conversations.start(f"title {number}")
        conversations.add(known, "user", f"question {number} " + "words " * 40)
        conversations.add(known, "assistant", f"answer {number} " + "more " * 40)
        said[known] = [stream.randrange(1000) for _ in range(150)]
        recorded.add(said[known], context=[1, 2, 3], conversation=known)
    Facts(recorded.database).put("model", "m", {"rows": 16})
    PairStore(recorded.database, "costs").save("t", "d", b"cost")
    recorded.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    recorded.database.close()
    return said


def pages_of(path: Path, name: str) -> list[int]:
    """Numbers of the pages of one table or index, leaves last."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(
            "SELECT pageno FROM dbstat WHERE name = ? ORDER BY path = '/' DESC, pageno", (name,)
        )
        return [page for (page,) in rows]


def flip(path: Path, page: int, num_bytes: int = PAGE, start: int = 0) -> None:
    """Invert bytes of a page."""
    with path.open("r+b") as file:
        file.seek((page - 1) * PAGE + start)
        content = file.read(num_bytes)
        file.seek((page - 1) * PAGE + start)
        file.write(bytes(byte ^ 0xFF for byte in content))


def found(path: Path) -> list[str]:
    with contextlib.closing(connect(path, 1.0, 1 << 20)) as connection:
        return problems(connection)


def test_statistics_count_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "edgespec.db"
    recorded = on_disk(path)
    recorded.add([1, 2, 3])
    recorded.add([4, 5], tier="statistics")
    recorded.add([6], vocabulary=OTHER_VOCABULARY)
    conversations = Conversations(recorded.connection)
    conversations.add(conversations.start("t"), "user", "hello")
    stats = statistics(recorded.connection, path)
    assert [(t.vocabulary, t.tier, t.num_sequences, t.num_tokens) for t in stats.tiers] == [
        ("tiny", "model", 1, 3),
        ("tiny", "statistics", 1, 2),
        ("other", "model", 1, 1),
    ]
    assert (stats.num_tokens, stats.num_conversations, stats.num_messages) == (6, 1, 1)
    assert stats.used_bytes > 0 and path.stat().st_size <= stats.file_bytes


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
    assert path.stat().st_size <= limit < before
    assert path.with_name("edgespec.db-wal").stat().st_size == 0
    cursor = recorded.reader().lookup([900, 901, 902])
    assert cursor is not None and cursor.best().token == 903
    assert problems(recorded.connection) == []


def test_a_sound_database_has_no_problems(tmp_path: Path) -> None:
    path = tmp_path / "edgespec.db"
    filled(path, 5)
    assert found(path) == []


def test_an_index_that_lost_rows_is_noticed_and_made_anew() -> None:
    recorded = in_memory()
    for number in range(100):
        recorded.add([number, number + 1, number + 2, 5])
    whole = recorded.connection.execute("SELECT * FROM grams").fetchall()
    recorded.connection.execute("DELETE FROM grams WHERE position % 3 = 0")
    recorded.connection.commit()
    assert "token index has" in problems(recorded.connection)[0]
    rebuild_index(recorded.connection)
    assert problems(recorded.connection) == []
    assert recorded.connection.execute("SELECT * FROM grams").fetchall() == whole


def test_a_search_index_that_does_not_fit_is_noticed_and_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "edgespec.db"
    filled(path, 5)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM messages_fts_data WHERE id > 10")
    assert found(path) != []
    assert repair(path) == ["the indexes were made anew; nothing was lost"]
    assert found(path) == []
    with contextlib.closing(connect(path, 1.0, 1 << 20)) as connection:
        assert len(Conversations(connection).search("question 3")) == 1


@pytest.mark.parametrize("table", ["grams", "blocks", "messages", "messages_fts_data", "sequences"])
def test_a_damaged_page_loses_only_what_was_on_it(tmp_path: Path, table: str) -> None:
    path = tmp_path / "edgespec.db"
    said = filled(path)
    leaves = pages_of(path, table)[1:]
    flip(path, leaves[len(leaves) // 2])
    assert found(path) != []
    told = repair(path)
    assert "saved" in told[0] and "edgespec.db.salvaged-" in told[0]
    assert found(path) == []
    assert len(list(tmp_path.glob("edgespec.db.salvaged-*"))) == 1
    with open_database(path) as database:
        assert Facts(database).get("model", "m") == {"rows": 16}
        assert PairStore(database, "costs").load("t", "d") == b"cost"
        recorded = Recorded(database)
        conversations = Conversations(database.connection)
        assert {known.id for known in conversations.all()} == set(said)
        lost_messages = 240 - recorded.count("messages")
        lost_sequences = 120 - recorded.count("sequences")
        assert (lost_messages > 0) == (table == "messages") and lost_messages < 40
        assert (lost_sequences > 0) == (table == "blocks") and lost_sequences < 20
        reader = recorded.reader(neighbours=8)
        num_found = 0
        for tokens in said.values():
            cursor = reader.lookup(tokens[:40])
            num_found += cursor is not None and cursor.best().token == tokens[40]
        assert num_found >= 120 - lost_sequences


def test_a_file_that_others_write_to_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "edgespec.db"
    filled(path, 20)
    flip(path, pages_of(path, "blocks")[-1])
    before = path.read_bytes()
    with open_database(path), pytest.raises(BusyError, match="end other EdgeSpec commands"):
        repair(path)
    assert path.read_bytes() == before and list(tmp_path.glob("*.damaged-*")) == []
    assert "saved 40 messages" in repair(path)[0]


def test_a_damaged_file_that_others_have_open_is_not_set_aside(tmp_path: Path) -> None:
    """They go on with it; whoever comes meanwhile remembers nothing."""
    path = tmp_path / "edgespec.db"
    filled(path, 5)
    with open_database(path) as other:
        other.connection.execute("UPDATE _sqlite_migrations SET name = 'm' WHERE id = 1")
        other.connection.commit()
        with open_database(path) as database:
            assert database.path is None
            assert "damaged" in database.notice and "in use" in database.notice
        assert not list(tmp_path.glob("*.damaged-*"))
    with open_database(path) as database:
        assert database.path == path and "set aside" in database.notice


def test_with_flipped_bytes_anywhere_a_chat_goes_on(tmp_path: Path) -> None:
    """Each page in turn is damaged in another way; nothing raises, no token is out of range."""
    original = tmp_path / "original.db"
    said = filled(original, 30)
    content = original.read_bytes()
    stream = random.Random(11)
    for page in range(1, len(content) // PAGE + 1):
        path = tmp_path / f"page{page}" / "edgespec.db"
        path.parent.mkdir()
        path.write_bytes(content)
        start = stream.randrange(PAGE)
        flip(path, page, num_bytes=stream.choice((1, 16, PAGE - start)), start=start)
        _chat(path, said)
        for file in path.parent.iterdir():
            file.unlink()


def _chat(path: Path, said: dict[str, list[int]]) -> None:
    with open_database(path) as database:
        Facts(database).get("model", "m")
        memory = open_token_memory(database, VOCABULARY)
        if memory is None:
            assert "nothing is remembered" in database.notice or "damaged" in database.notice
            return
        with memory:
            for tokens in list(said.values())[:6]:
                cursor = memory.model.lookup(tokens[:40])
                for _ in range(20):
                    if cursor is None:
                        break
                    token = cursor.best().token
                    assert 0 <= token < VOCABULARY.num_tokens
                    cursor = cursor.after(token)
            memory.record([1, 2, 3, 4], [])
            assert memory.flush()
            assert "\n" not in memory.notice


def test_a_reader_of_a_damaged_index_says_so_once_and_finds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "edgespec.db"
    said = filled(path)
    for page in pages_of(path, "grams"):
        flip(path, page)
    with contextlib.closing(connect(path, 1.0, 1 << 20)) as connection:
        reader = TokenReader(connection, VOCABULARY, "model")
        tokens = next(iter(said.values()))
        assert reader.lookup(tokens[:40]) is None
        assert reader.problem.startswith("the database is damaged")
        assert "edgespec db check" in reader.problem
        assert reader.lookup(tokens[:40]) is None


def test_setting_aside_keeps_the_log_and_every_earlier_copy(tmp_path: Path) -> None:
    path = tmp_path / "edgespec.db"
    names = set()
    for number in range(3):
        path.write_bytes(b"db %d" % number)
        path.with_name("edgespec.db-wal").write_bytes(b"log %d" % number)
        aside = set_aside(path)
        names.add(aside.name)
        assert aside.read_bytes() == b"db %d" % number
        assert aside.with_name(aside.name + "-wal").read_bytes() == b"log %d" % number
    assert len(names) == 3 and not path.exists()
