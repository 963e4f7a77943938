"""Every schema that was ever released is migrated, with a backup; nothing in it is lost."""

from __future__ import annotations

import contextlib
import sqlite3
import stat
import threading
from pathlib import Path

import pytest
import sqlite_utils
from token_support import Talks

from edgespec.cache import migrations
from edgespec.cache.chats.search import search
from edgespec.cache.chats.store import ChatStore
from edgespec.cache.database import open_database
from edgespec.cache.facts import Facts, PairStore
from edgespec.cache.schema import NAMES
from edgespec.cache.upkeep.check import problems
from edgespec.cache.upkeep.repair import repair
from edgespec.chats import ChatSettings, path_to

SCHEMAS = range(1, len(NAMES) + 1)

# The tables as each schema left them, so that an edited migration shows.
TABLES = {
    1: {"facts"},
    2: {"vocabularies", "scopes", "files", "sequences", "blocks", "grams"},
    3: {"ngram_caches", "calibrations", "costs"},
    4: {"conversations", "messages", "messages_fts"},
    5: {"messages_trigram"},
}


def made_by_schema(path: Path, schema: int) -> None:
    """A database as EdgeSpec wrote it when `schema` was the newest, with a fact in it."""
    names = [migration.name for migration in migrations.migrations.pending(_empty())]
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        db = sqlite_utils.Database(connection)
        migrations.migrations.apply(db, stop_before=names[schema : schema + 1])
        connection.execute("INSERT INTO facts VALUES ('kind', 'key', '{\"v\": 1}', 0)")
        connection.commit()


def _empty() -> sqlite_utils.Database:
    return sqlite_utils.Database(memory=True)


def table_names(path: Path) -> set[str]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        return {name for (name,) in rows}


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_released_schema_is_migrated_and_keeps_what_was_there(
    tmp_path: Path, schema: int
) -> None:
    path = tmp_path / "edgespec.db"
    made_by_schema(path, schema)
    expected = set().union(*(TABLES[number] for number in range(1, schema + 1)))
    unexpected = set().union(*(TABLES[number] for number in SCHEMAS if number > schema))
    assert expected <= table_names(path) and not unexpected & table_names(path)
    with open_database(path) as database:
        assert database.notice == ""
        assert problems(database.connection) == []
        assert Facts(database).get("kind", "key") == {"v": 1}
        talks = Talks(database.connection)
        talks.add(talks.start("t"), "user", "hello")
        assert len(search(database.connection, "hello")) == 1
    assert set().union(*TABLES.values()) <= table_names(path)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_backup_holds_the_old_schema(tmp_path: Path, schema: int) -> None:
    path = tmp_path / "edgespec.db"
    made_by_schema(path, schema)
    before = table_names(path)
    open_database(path).close()
    backups = list(tmp_path.glob("*.backup*"))
    if schema == len(NAMES):
        assert backups == []
        return
    assert [backup.name for backup in backups] == [f"edgespec.db.schema-{schema}.backup"]
    assert stat.S_IMODE(backups[0].stat().st_mode) == 0o600
    assert table_names(backups[0]) == before
    with contextlib.closing(sqlite3.connect(backups[0])) as connection:
        assert connection.execute("SELECT value FROM facts").fetchall() == [('{"v": 1}',)]


def old_chats(path: Path) -> None:
    """Three conversations of schema 4, two of them interleaved, under a clock that went back."""
    made_by_schema(path, 4)
    said = [
        ("first", "user", "caffè?", 500.0),
        ("second", "user", "天気はどうですか", 100.0),
        ("first", "assistant", "Sì.", 90.0),
        ("second", "assistant", "よく晴れています", 80.0),
        ("first", "user", "Zucchero?", 70.0),
    ]
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        for name in ("first", "second", "empty"):
            connection.execute(
                "INSERT INTO conversations (id, title, created) VALUES (?, ?, 60.0)", (name, name)
            )
        connection.executemany(
            "INSERT INTO messages (conversation, role, content, created) VALUES (?, ?, ?, ?)", said
        )


def test_conversations_of_before_become_chats_without_branches(tmp_path: Path) -> None:
    path = tmp_path / "edgespec.db"
    old_chats(path)
    with open_database(path) as database:
        assert problems(database.connection) == []
        store = ChatStore(database.connection)
        assert [head.id for head in store.recent()] == ["first", "second", "empty"]
        chat = store.load("first")
        assert chat is not None and chat.settings == ChatSettings()
        assert (chat.head.updated, chat.head.origin, chat.tip) == (70.0, "chat", 5)
        assert [
            (each.id, each.parent, each.role, each.content, each.created, each.state)
            for each in chat.messages
        ] == [
            (1, None, "user", "caffè?", 500.0, "done"),
            (3, 1, "assistant", "Sì.", 90.0, "done"),
            (5, 3, "user", "Zucchero?", 70.0, "done"),
        ]
        assert [hit.message for hit in store.search("caffe")] == [1]
        assert [hit.message for hit in store.search("天気は")] == [2]
        store.begin("second", 4, "明日は？")
        assert store.recent(1)[0].id == "second"


def test_a_damaged_database_of_before_is_read_with_what_it_had(tmp_path: Path) -> None:
    path = tmp_path / "edgespec.db"
    old_chats(path)
    path.replace(tmp_path / "edgespec.db.damaged-20310101-000000")
    open_database(path).close()
    (told,) = repair(path)
    assert told.startswith("added 5 messages and 0 recorded sequences")
    with open_database(path) as database:
        store = ChatStore(database.connection)
        chat = store.load("first")
        assert chat is not None and chat.head.title == "first"
        assert [each.content for each in path_to(chat.messages, chat.tip)] == [
            *("caffè?", "Sì.", "Zucchero?")
        ]
        assert {head.id for head in store.recent()} == {"first", "second", "empty"}
        assert problems(database.connection) == []


def test_a_new_database_needs_no_backup(tmp_path: Path) -> None:
    open_database(tmp_path / "edgespec.db").close()
    assert {file.name for file in tmp_path.iterdir()} == {"edgespec.db"}


def test_without_room_for_a_backup_the_old_database_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "edgespec.db"
    made_by_schema(path, 1)
    (tmp_path / "edgespec.db.schema-1.backup").mkdir()  # in the way
    before = table_names(path)
    with open_database(path) as database:
        assert "no backup before the upgrade" in database.notice
        assert "nothing is remembered" in database.notice
    assert table_names(path) == before


@pytest.mark.parametrize("is_old", [True, False, False, False])
def test_of_many_that_open_a_database_at_once_one_makes_it_and_all_can_use_it(
    tmp_path: Path, is_old: bool
) -> None:
    path = tmp_path / "edgespec.db"
    if is_old:
        made_by_schema(path, 1)
    notices: list[str] = []
    start = threading.Barrier(6)

    def open_it(number: int) -> None:
        start.wait()
        with open_database(path) as database:
            notices.append(database.notice)
            assert Facts(database).put("number", str(number), {})

    threads = [threading.Thread(target=open_it, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert notices == [""] * 6
    with open_database(path) as database:
        assert Facts(database).forget("number") == 6
    assert set().union(*TABLES.values()) <= table_names(path)


def test_pairs_keep_their_bytes_apart(tmp_path: Path) -> None:
    with open_database(tmp_path / "edgespec.db") as database:
        ngrams, others = (PairStore(database, name) for name in ("ngram_caches", "calibrations"))
        assert ngrams.load("t", "d") is None
        assert ngrams.save("t", "d", b"\0one") and ngrams.save("t", "e", b"two")
        assert others.save("t", "d", b"other")
        assert ngrams.save("t", "d", b"\0three")
    with open_database(tmp_path / "edgespec.db") as database:
        ngrams, others = (PairStore(database, name) for name in ("ngram_caches", "calibrations"))
        assert (ngrams.load("t", "d"), ngrams.load("t", "e")) == (b"\0three", b"two")
        assert ngrams.load("d", "t") is None
        assert others.load("t", "d") == b"other"


def test_a_pair_that_cannot_be_kept_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "edgespec.db"
    with open_database(path) as database:
        pairs = PairStore(database, "calibrations")
        assert pairs.save("t", "d", b"1")
        database.connection.execute("PRAGMA busy_timeout=20")
        blocker = sqlite3.connect(path, isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        assert not pairs.save("t", "d", b"2")
        assert pairs.load("t", "d") == b"1"
        blocker.close()
        database.connection.execute("DROP TABLE calibrations")
        assert pairs.load("t", "d") is None


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE _sqlite_migrations SET name = 'm001_facuts' WHERE name = 'm001_facts'",
        "DELETE FROM _sqlite_migrations WHERE name = 'm002_tokens'",
        "DELETE FROM _sqlite_migrations WHERE name = 'm004_conversations'",
        "DELETE FROM _sqlite_migrations",
        "DROP TABLE _sqlite_migrations",
    ],
)
def test_a_damaged_list_of_migrations_is_no_newer_edgespec(tmp_path: Path, change: str) -> None:
    """Such a database is replaced, and its content added on request; a chat goes on."""
    path = tmp_path / "edgespec.db"
    with open_database(path) as database:
        Facts(database).put("kind", "key", {"v": 1})
        database.connection.execute(change)
        database.connection.commit()
    with open_database(path) as database:
        assert database.path == path and "a new one was begun" in database.notice
    repair(path)
    with open_database(path) as database:
        assert Facts(database).get("kind", "key") == {"v": 1} and database.notice == ""
