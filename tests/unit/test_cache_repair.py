"""After a repair there is what the last backup held and what is newer and legible, once."""

from __future__ import annotations

import contextlib
import gc
import random
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from filled_database import PAGE, Kept, filled, kept, overwrite, pages_of
from hypothesis import given, settings
from hypothesis import strategies as st
from token_support import VOCABULARY, Recorded, Talks, in_memory, on_disk

from edgespec.cache.chats.search import search
from edgespec.cache.database import connect, open_database
from edgespec.cache.facts import Facts
from edgespec.cache.tokens.token_memory import open_token_memory
from edgespec.cache.upkeep.backup import backups
from edgespec.cache.upkeep.check import problems
from edgespec.cache.upkeep.lock import upkeep_lock
from edgespec.cache.upkeep.quarantine import unread
from edgespec.cache.upkeep.repair import repair
from edgespec.errors import BusyError


class Home:
    """A filled database, what it holds, and what its backup does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "edgespec.db"
        self.backed_up = filled(self.path)
        self.whole = kept(self.path)

    def copy(self, folder: Path) -> Path:
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        return folder / "edgespec.db"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"))


def found(path: Path) -> list[str]:
    with contextlib.closing(connect(path, 1.0, 1 << 20)) as connection:
        return problems(connection)


def repaired(path: Path) -> Kept:
    """What is there after the command that a user is told to run."""
    open_database(path).close()
    repair(path)
    assert found(path) == [] and unread(path) == []
    return kept(path)


def assert_only_newer_lost(home: Home, after: Kept) -> None:
    assert home.backed_up <= after
    assert sum(after.messages.values()) <= sum(home.whole.messages.values()), "nothing twice"
    assert after.num_tokens <= home.whole.num_tokens


def test_a_file_without_its_first_page_is_its_backup(home: Home, tmp_path: Path) -> None:
    path = home.copy(tmp_path)
    overwrite(path, [1])
    with open_database(path) as database:
        assert database.path == path
        assert "its backup of 20" in database.notice and "--repair" in database.notice
        assert "\n" not in database.notice
    assert kept(path) == home.backed_up
    (damaged,) = unread(path)
    content = damaged.read_bytes()
    (told,) = repair(path)
    assert told.startswith("added 0 messages and 0 recorded sequences of the damaged file")
    (read,) = tmp_path.glob("*.recovered-*")
    assert read.read_bytes() == content, "the original is never changed"


@pytest.mark.parametrize("table", ["blocks", "messages", "conversations", "facts", "grams"])
def test_a_damaged_leaf_costs_only_what_was_newer_and_on_it(
    home: Home, tmp_path: Path, table: str
) -> None:
    for page in pages_of(home.path, table)[-1:]:
        path = home.copy(tmp_path / str(page))
        overwrite(path, [page])
        after = repaired(path)
        assert_only_newer_lost(home, after)
        if table != "messages":
            assert after.messages == home.whole.messages
            assert home.whole.num_tokens - after.num_tokens <= (table == "blocks") * PAGE // 4
        lost = home.whole.messages - after.messages
        assert sum(lost.values()) < PAGE // 20
        if table == "grams":
            assert after == home.whole


def test_between_two_damaged_leaves_rows_are_read(home: Home, tmp_path: Path) -> None:
    path = home.copy(tmp_path)
    for backup in backups(path):
        backup.unlink()
    leaves = pages_of(path, "blocks")[1:]
    assert len(leaves) > 8
    overwrite(path, [leaves[0], leaves[3], leaves[-3], leaves[-1]])
    after = repaired(path)
    answers = {row for row in home.whole.sequences if row[1] == "model"}
    num_tokens = sum(len(row[4]) for row in answers)
    assert num_tokens - 4 * PAGE // 4 <= after.num_tokens < num_tokens
    assert after.messages == home.whole.messages


def test_without_a_sound_backup_what_can_be_read_is_kept(home: Home, tmp_path: Path) -> None:
    path = home.copy(tmp_path)
    (backup,) = backups(path)
    overwrite(backup, pages_of(backup, "messages"))
    overwrite(path, pages_of(path, "blocks")[-1:])
    open_database(path).close()
    assert repair(path)[0] == "there is no sound backup: a new database was begun"
    after = kept(path)
    assert after.messages == home.whole.messages
    assert {row for row in after.small if row[0] == "fact"} == {
        row for row in home.whole.small if row[0] == "fact"
    }


def test_what_was_said_since_a_backup_took_its_place_stays(home: Home, tmp_path: Path) -> None:
    path = home.copy(tmp_path)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM _sqlite_migrations WHERE name = 'm002_tokens'")
    with open_database(path) as database:
        assert "took its place" in database.notice
        recorded = Recorded(database)
        conversations = Talks(database.connection)
        new = conversations.start("since then")
        conversations.add(new, "user", "hello")
        recorded.add([1, 2, 3], conversation=new)
    after = repaired(path)
    assert home.whole <= after
    assert after.messages - home.whole.messages == {(new, "user", "hello"): 1}
    assert after.num_tokens == home.whole.num_tokens + 3


DAMAGE = st.one_of(
    st.tuples(st.integers(0), st.sampled_from([1, 16, 4096]), st.integers(1, 255)),
    st.tuples(st.integers(0), st.just(-1), st.just(0)),
)
"""Place, number of bytes and what is added to them; or the place where the file ends."""


@settings(max_examples=30, deadline=None)
@given(st.lists(DAMAGE, min_size=1, max_size=4))
def test_no_damage_stops_a_chat_or_loses_what_was_backed_up(
    home: Home, tmp_path_factory: pytest.TempPathFactory, damage: list[tuple[int, int, int]]
) -> None:
    path = home.copy(tmp_path_factory.mktemp("damaged"))
    content = bytearray(path.read_bytes())
    for place, num_bytes, change in damage:
        place %= max(len(content), 1)
        if num_bytes < 0:
            del content[place:]
        for index in range(place, min(place + num_bytes, len(content))):
            content[index] = (content[index] + change) % 256
    path.write_bytes(content)
    _chat(path)
    after = repaired(path)
    answer = (1, 2, 3, 4)  # of the chat; it may have met a lock or a damaged table
    after.sequences.pop(("tiny", "model", None, None, answer), None)
    assert_only_newer_lost(home, after)
    assert repair(path) == []
    shutil.rmtree(path.parent)


def _chat(path: Path) -> None:
    with open_database(path) as database:
        assert "\n" not in database.notice
        Facts(database).get("model", "m")
        memory = open_token_memory(database, VOCABULARY)
        assert memory is not None
        with memory:
            cursor = memory.model.lookup(list(range(20)))
            for _ in range(20):
                if cursor is None:
                    break
                token = cursor.best().token
                assert 0 <= token < VOCABULARY.num_tokens
                cursor = cursor.after(token)
            memory.record([1, 2, 3, 4], [])
            assert memory.flush()
        assert "\n" not in memory.notice


class Interrupted(BaseException):
    """As if the process were told to end."""


@contextlib.contextmanager
def interrupted_at(line: int) -> Iterator[list[int]]:
    """End whatever runs once so many lines of the upkeep were executed; how many there were."""
    count = [0]

    def trace(frame: FrameType, event: str, _argument: object) -> Any:  # noqa: ANN401
        if "/upkeep/" not in frame.f_code.co_filename:
            return None
        if event == "line":
            count[0] += 1
            if count[0] == line:
                raise Interrupted
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield count
    finally:
        sys.settrace(before)


def test_a_repair_interrupted_anywhere_is_done_again(home: Home, tmp_path: Path) -> None:
    damaged = pages_of(home.path, "blocks")[-1:]
    first = home.copy(tmp_path / "first")
    overwrite(first, damaged)
    with interrupted_at(0) as num_lines:
        repair(first)
    expected = kept(first)
    stream = random.Random(6)
    for line in sorted({*range(1, 40, 6), *stream.sample(range(40, num_lines[0]), 12)}):
        path = home.copy(tmp_path / str(line))
        overwrite(path, damaged)
        original = path.read_bytes()
        with interrupted_at(line), contextlib.suppress(Interrupted):
            repair(path)
        gc.collect()  # a killed process holds no connection
        files = [file for file in path.parent.iterdir() if file.name.startswith("edgespec.db")]
        assert any(file.read_bytes() == original for file in files), "the original is never lost"
        repair(path)
        assert kept(path) == expected and unread(path) == []
        read = path.parent.glob("*.recovered-*")
        assert len([file for file in read if not file.name.endswith("-wal")]) == 1
        assert not list(path.parent.glob(".*.part*"))
        shutil.rmtree(path.parent)


def test_of_two_repairs_at_once_one_is_refused(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgespec.cache.upkeep.lock.WAIT_S", 0.05)
    monkeypatch.setattr("edgespec.cache.database.BUSY_TIMEOUT_S", 0.05)
    path = home.copy(tmp_path)
    overwrite(path, [1])
    with upkeep_lock(path):
        with pytest.raises(BusyError, match="another command repairs"):
            repair(path)
        with open_database(path) as database:
            assert database.path is None and "nothing is remembered" in database.notice
    assert repaired(path) == home.backed_up


def test_what_a_killed_repair_left_is_deleted(home: Home, tmp_path: Path) -> None:
    path = home.copy(tmp_path)
    for name in (".edgespec.db.abc.part", ".edgespec.db.backup-000001.abc.part-wal"):
        path.with_name(name).write_bytes(b"half")
    assert repair(path) == []
    assert not list(path.parent.glob("*.part*"))


def test_a_file_that_is_no_database_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "edgespec.db"
    open_database(path).close()
    for content in (b"", b"no database" * 1000, bytes(8192)):
        path.with_name("edgespec.db.damaged-20310101-000000").write_bytes(content)
        (told,) = repair(path)
        assert told.startswith("added 0 messages and 0 recorded sequences")


def test_a_file_that_others_write_to_is_not_replaced(home: Home, tmp_path: Path) -> None:
    path = home.copy(tmp_path)
    overwrite(path, pages_of(path, "blocks")[-1:])
    before = path.read_bytes()
    with open_database(path), pytest.raises(BusyError, match="end other EdgeSpec commands"):
        repair(path)
    assert path.read_bytes() == before and unread(path) == []


def test_a_damaged_file_that_others_have_open_stays(tmp_path: Path) -> None:
    """They go on with it; whoever comes meanwhile remembers nothing."""
    path = tmp_path / "edgespec.db"
    with open_database(path) as other:
        other.connection.execute("UPDATE _sqlite_migrations SET name = 'm' WHERE id = 1")
        other.connection.commit()
        with open_database(path) as database:
            assert database.path is None
            assert "damaged" in database.notice and "in use" in database.notice
        assert unread(path) == []
    with open_database(path) as database:
        assert database.path == path and "a new one was begun" in database.notice


def test_a_log_belongs_to_its_database(home: Home, tmp_path: Path) -> None:
    """What the log alone holds is read with the damaged file, and not taken for the backup's."""
    path = home.copy(tmp_path)
    live = on_disk(path)
    Talks(live.connection).start("only in the log")
    for part in ("", "-wal"):
        shutil.copy(f"{path}{part}", f"{path}.copy{part}")
    live.database.close()
    for part in ("", "-wal"):
        Path(f"{path}.copy{part}").replace(f"{path}{part}")
    overwrite(path, pages_of(home.path, "blocks")[-1:])
    assert any("only in the log" in row for row in repaired(path).small)


def test_an_index_that_lost_rows_is_noticed_and_made_anew() -> None:
    recorded = in_memory()
    for number in range(100):
        recorded.add([number, number + 1, number + 2, 5])
    whole = recorded.connection.execute("SELECT * FROM grams").fetchall()
    recorded.connection.execute("DELETE FROM grams WHERE position % 3 = 0")
    recorded.connection.commit()
    assert "token index has" in problems(recorded.connection)[0]
    recorded.store.rebuild_index()
    assert problems(recorded.connection) == []
    assert recorded.connection.execute("SELECT * FROM grams").fetchall() == whole


def test_a_search_index_that_does_not_fit_is_noticed_and_made_anew(
    home: Home, tmp_path: Path
) -> None:
    path = home.copy(tmp_path)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM messages_fts_data WHERE id > 10")
    assert found(path) != []
    assert repair(path) == ["the indexes were made anew; nothing was lost"]
    assert found(path) == []
    with contextlib.closing(connect(path, 1.0, 1 << 20)) as connection:
        assert len(search(connection, "question 3")) > 0
