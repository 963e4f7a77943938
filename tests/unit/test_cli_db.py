"""`edgespec db` on databases of the tests' own, in this process; errors are single lines."""

from __future__ import annotations

import contextlib
import json
import re
import resource
import sqlite3
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from command_support import refusal, run_command
from tiny_models import TinySpec, write_tiny_model
from token_support import VOCABULARY, Recorded, count, on_disk

from edgespec.cache.chats.conversations import Conversations, NewMessage
from edgespec.cache.database import open_database, transaction
from edgespec.cache.facts import Facts
from edgespec.cache.tokens.answers import FOLLOWED
from edgespec.cache.tokens.sequences import Recording, SequenceStore
from edgespec.cache.upkeep.backup import back_up, backups
from edgespec.cache.upkeep.lock import upkeep_lock
from edgespec.cli.db import parse_age
from edgespec.cli.group import cli
from edgespec.errors import BusyError, EdgeSpecError, StorageError, UsageError
from edgespec.gguf.trim import write_trimmed
from edgespec.paths import user_paths
from edgespec.runtime.prompt_files import file_name


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "edgespec.db"


@pytest.fixture
def recorded(path: Path) -> Iterator[Recorded]:
    """A database with two conversations, each with something learned, and an imported text."""
    made = on_disk(path)
    for name, said, number in (("rain", "about rain and wind", 10), ("bread", "bake bread", 20)):
        scope = made.store.scope(VOCABULARY, "model")
        with transaction(made.connection):
            made.store.add(scope, Recording(range(number, number + 9), conversation=name))
            Conversations(made.connection).follow(
                name, name, [NewMessage("user", said), NewMessage("assistant", "gladly")]
            )
    made.add([500, 501, 502], [499], tier="statistics")
    yield made
    made.database.close()


def db(*arguments: str | Path, answer: str | None = None) -> Result:
    return run_command("db", *arguments, answer=answer)


def refused(kind: type[EdgeSpecError], *arguments: str | Path) -> str:
    return refusal(kind, "db", *arguments)


def test_stats_tell_what_is_there(recorded: Recorded, path: Path) -> None:
    told = db("stats")
    assert told.stderr == ""
    assert f"file           {path}" in told.stdout
    assert "tokens         21, 525 bytes of at most 268.4 MB" in told.stdout
    assert "conversations  2, 4 messages" in told.stdout
    assert re.search(r"answers +18 in 2 sequences, vocabulary tiny", told.stdout)
    assert re.search(r"imported text +3 in 1 sequence, vocabulary tiny", told.stdout)
    value = json.loads(db("stats", "--json").stdout)
    assert (value["num_tokens"], value["num_messages"], value["path"]) == (21, 4, str(path))
    assert value["tiers"][0] == {
        "vocabulary": "tiny",
        "tier": "model",
        "num_sequences": 2,
        "num_tokens": 18,
    }


def test_the_first_command_makes_an_empty_database(path: Path) -> None:
    assert json.loads(db("stats", "--json").stdout)["num_tokens"] == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_search_shows_hits_with_their_conversation(recorded: Recorded) -> None:
    told = db("search", "rain", "WIND")
    assert re.fullmatch(
        r"rain  \d{4}-\d\d-\d\d \d\d:\d\d  user: about \[rain\] and \[wind\]\n", told.stdout
    )
    assert db("search", "gladly").stdout.count("\n") == 2
    assert db("search", "gladly", "--limit", "1").stdout.count("\n") == 1
    [hit] = json.loads(db("search", "bake", "--json").stdout)
    assert (hit["conversation"], hit["role"], hit["snippet"]) == ("bread", "user", "[bake] bread")
    nothing = db("search", "snow")
    assert (nothing.stdout, nothing.stderr) == ("", "nothing found\n")
    assert db("search", '"', "--json").stdout == "[]\n"


def test_forgetting_a_conversation_takes_what_it_taught(recorded: Recorded) -> None:
    prompts = user_paths().ensure(user_paths().prompts)
    (prompts / file_name("rain", "any model")).write_bytes(b"")
    told = db("forget", "--conversation", "rain")
    assert not list(prompts.iterdir())
    assert told.stderr == "forgot 1 conversation, 2 messages, 9 recorded tokens\n"
    assert recorded.reader().lookup([10, 11, 12]) is None
    assert recorded.reader().lookup([20, 21, 22]) is not None
    assert "no conversation 'rain'" in refused(UsageError, "forget", "--conversation", "rain")


def test_forgetting_what_is_old(recorded: Recorded) -> None:
    connection = recorded.connection
    long_ago = time.time() - 40 * 86400
    for table, column in (("conversations", "id"), ("messages", "conversation")):
        connection.execute(f"UPDATE {table} SET created = ? WHERE {column} = 'rain'", (long_ago,))
    connection.commit()
    assert db("forget", "--older-than", "8w").stderr.startswith("forgot 0 conversations")
    assert db("forget", "--older-than", "30d").stderr.startswith("forgot 1 conversation,")
    assert recorded.count("conversations") == 1


def test_forgetting_everything_wants_to_be_meant(recorded: Recorded) -> None:
    assert "add --yes" in refused(UsageError, "forget", "--all")
    assert recorded.count("sequences") == 3
    told = db("forget", "--all", "--yes")
    assert told.stderr == "forgot 2 conversations, 4 messages, 21 recorded tokens\n"
    assert recorded.count("sequences") == recorded.count("messages") == 0


def test_what_drafters_learned_goes_with_any_conversation(recorded: Recorded) -> None:
    learned = user_paths().adaptations / "pair.training"
    learned.parent.mkdir(parents=True)
    learned.write_bytes(b"whatever")
    assert "learned" not in db("forget", "--older-than", "8w").stderr
    assert learned.exists()
    told = db("forget", "--conversation", "bread")
    assert told.stderr.endswith("recorded tokens, and what drafters learned\n")
    assert not learned.exists()
    learned.write_bytes(b"whatever")
    assert db("forget", "--all", "--yes").stderr.endswith("and what drafters learned\n")
    assert not learned.exists()


def test_heads_chosen_by_what_was_said_go_with_any_conversation(recorded: Recorded) -> None:
    folder = user_paths().trimmed
    folder.mkdir(parents=True)
    whole = write_tiny_model(folder.parent / "whole.gguf", TinySpec())
    own, shipped = folder / "own.gguf", folder / "shipped.gguf"
    kept = np.arange(3, 300, dtype=np.int32)
    write_trimmed(whole, own, kept, "", is_own=True)
    write_trimmed(whole, shipped, kept, "")
    facts = Facts(recorded.database)
    facts.put(FOLLOWED, "a head", {"sequence": 7})
    assert "learned" not in db("forget", "--older-than", "8w").stderr
    assert own.exists()
    told = db("forget", "--conversation", "bread")
    assert told.stderr.endswith("recorded tokens, and what drafters learned\n")
    assert not own.exists()
    assert shipped.exists()
    assert facts.get(FOLLOWED, "a head") is None


@pytest.mark.parametrize(
    "options", [(), ("--all", "--older-than", "3d"), ("--conversation", "a", "--all")]
)
def test_forget_wants_exactly_one_thing(path: Path, options: tuple[str, ...]) -> None:
    assert "exactly one" in refused(UsageError, "forget", *options)


@pytest.mark.parametrize("age", ["", "30", "d", "-3d", "3 d", "1e3d", "1y", "9999999d"])
def test_what_is_no_age_is_refused(path: Path, age: str) -> None:
    assert "is no age" in refused(UsageError, "forget", "--older-than", age)


def test_ages_are_minutes_hours_days_weeks() -> None:
    ages = [parse_age(text) for text in ("90m", "12h", "1.5d", "2w")]
    assert ages == [5400, 43200, 129600, 1209600]


def test_an_export_can_be_imported_elsewhere(
    recorded: Recorded, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = tmp_path / "out.jsonl"
    db("export", exported)
    assert stat.S_IMODE(exported.stat().st_mode) == 0o600
    assert db("export").stdout == exported.read_text(encoding="utf-8")
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path / "other"))
    told = db("import", exported)
    assert told.stderr == (
        "out.jsonl: 2 conversations and 3 recorded answers added, 0 known already\n"
    )
    assert "2 conversations" not in db("import", exported).stderr
    assert db("export").stdout.splitlines()[1:] == exported.read_text("utf-8").splitlines()[1:]


def test_an_export_that_cannot_be_written_leaves_nothing(
    recorded: Recorded, tmp_path: Path
) -> None:
    folder = tmp_path / "gone" / "out.jsonl"
    assert "cannot write" in refused(StorageError, "export", folder)


def test_a_broken_export_is_refused(path: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    for line, words in ((b'{"sequence": 3}', "line 2"), (b"\xff", "not UTF-8")):
        broken.write_bytes(b'{"edgespec": "export", "version": 1}\n' + line + b"\n")
        assert words in refused(UsageError, "import", broken)


def test_a_path_that_is_not_there_is_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(click.ClickException, match="does not exist"):
        db("import", tmp_path / "nothing")


def test_compacting_says_what_it_freed(recorded: Recorded, path: Path) -> None:
    for number in range(100):
        recorded.add([(number * 131 + i * (number + 3)) % 1000 for i in range(400)])
    recorded.connection.execute("DELETE FROM grams")
    recorded.connection.commit()
    recorded.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    before = path.stat().st_size
    told = db("compact").stderr
    assert re.fullmatch(r"\d+(\.\d)? [kM]?B freed, \d+(\.\d)? [kM]?B in use\n", told)
    assert path.stat().st_size < before


def test_a_sound_database_is_sound(recorded: Recorded) -> None:
    assert db("check").stderr == "the database is sound\n"


def test_what_is_wrong_is_told_and_mended(recorded: Recorded) -> None:
    recorded.connection.execute("DELETE FROM grams WHERE position % 2 = 0")
    recorded.connection.commit()
    result = CliRunner().invoke(cli, ["db", "check"], standalone_mode=False)
    assert isinstance(result.exception, StorageError)
    assert "db check --repair" in str(result.exception)
    assert "the token index has" in result.stdout
    assert "nothing was lost" in db("check", "--repair").stderr
    assert db("check").stderr == "the database is sound\n"


def overwritten(path: Path) -> bytes:
    """The database with a first page that is none; what it was before."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    whole = path.read_bytes()
    path.write_bytes(bytes(4096) + whole[4096:])
    return whole


def test_a_backup_takes_the_place_of_what_cannot_be_read(recorded: Recorded, path: Path) -> None:
    back_up(path)
    recorded.add([1, 2, 3])
    recorded.database.close()
    overwritten(path)
    told = db("stats")
    assert told.stderr.count("\n") == 1
    assert "took its place; `edgespec db check --repair`" in told.stderr
    assert "conversations  2, 4 messages" in told.stdout
    assert re.search(r"backups +1, the last of 20\d\d-", told.stdout)
    checked = db("check").stderr
    assert checked.startswith("the database is sound\nwhat edgespec.db.damaged-")
    assert "run `edgespec db check --repair`" in checked
    assert "added 0 messages" in db("check", "--repair").stderr
    assert db("check").stderr == "the database is sound\n"
    found = json.loads(db("stats", "--json").stdout)
    assert (found["num_tokens"], found["num_backups"]) == (21, 1)


def test_imports_are_backed_up(recorded: Recorded, path: Path, tmp_path: Path) -> None:
    exported = tmp_path / "out.jsonl"
    db("export", exported)
    db("import", exported)
    (backup,) = backups(path)
    with contextlib.closing(sqlite3.connect(backup)) as copy:
        assert count(copy, "conversations") == 2


def test_forgetting_reaches_backups_and_damaged_files(recorded: Recorded, path: Path) -> None:
    back_up(path)
    recorded.database.close()
    whole = overwritten(path)
    db("stats")
    told = db("forget", "--older-than", "1m").stderr
    assert "what edgespec.db.damaged-" in told and "--repair" in told
    db("check", "--repair")
    assert list(path.parent.glob("*.recovered-*"))
    assert "forgot 1 conversation" in db("forget", "--conversation", "rain").stderr
    assert not list(path.parent.glob("*.recovered-*")), "it holds that conversation, too"
    assert all(b"rain and wind" not in file.read_bytes() for file in path.parent.glob("*"))
    (backup,) = backups(path)
    overwritten(path)
    assert "conversations  1, 2 messages" in db("stats").stdout, "from the backup, without it"
    path.with_name("edgespec.db.damaged-20310101-000000").write_bytes(whole)
    assert "damaged" not in db("forget", "--all", "--yes").stderr
    assert [file.name for file in path.parent.glob("edgespec.db.*")] == [
        "edgespec.db.backup-000004"
    ]
    assert not backup.exists()


def test_a_part_is_not_forgotten_from_a_damaged_database(recorded: Recorded, path: Path) -> None:
    """Its backups would be needed to mend it, and must not outlive what is forgotten."""
    back_up(path)
    recorded.connection.execute("DELETE FROM grams WHERE position % 2 = 0")
    recorded.connection.commit()
    assert "check --repair" in refused(StorageError, "forget", "--conversation", "rain")
    assert recorded.count("conversations") == 2 and len(backups(path)) == 1


def test_a_repair_without_room_loses_nothing_and_goes_on_later(
    recorded: Recorded, path: Path
) -> None:
    recorded.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    recorded.database.close()
    damaged = path.with_name("edgespec.db.damaged-20310101-000000")
    path.rename(damaged)
    open_database(path).close()
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (36_000, usual[1]))  # as a full disk does
    try:
        told = refused(StorageError, "check", "--repair")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert "free disk space" in told and damaged.exists()
    assert "kept as edgespec.db.recovered-" in db("check", "--repair").stderr
    found = json.loads(db("stats", "--json").stdout)
    assert (found["num_messages"], found["num_tokens"]) == (4, 21)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as blocker:
        blocker.execute("BEGIN IMMEDIATE")
        yield


def test_a_lock_held_by_another_is_told(
    recorded: Recorded, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgespec.cli.db_opened._BUSY_TIMEOUT_S", 0.05)
    with locked(path):
        assert "18 in 2 sequences" in db("stats").stdout, "reading needs no lock"
        for command in (("forget", "--conversation", "rain"), ("compact",)):
            assert "database is locked" in refused(StorageError, *command)
    assert recorded.count("conversations") == 2


def test_a_database_of_a_newer_version_is_refused(recorded: Recorded) -> None:
    recorded.connection.execute(
        "INSERT INTO _sqlite_migrations (migration_set, name, applied_at)"
        " VALUES ('edgespec', 'm999_unheard_of', '2031-01-01')"
    )
    recorded.connection.commit()
    for command in (("stats",), ("forget", "--all", "--yes"), ("compact",), ("check",)):
        assert "m999_unheard_of" in refused(StorageError, *command)
    assert SequenceStore(recorded.connection).remove(1) == 9, "nothing was touched"


def test_a_folder_that_cannot_be_used_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path / "file" / "home"))
    told = refused(StorageError, "stats")
    assert "cannot be used" in told and "EDGESPEC_HOME" in told


def test_an_export_of_a_damaged_database_is_one_line_and_leaves_nothing(
    recorded: Recorded, path: Path, tmp_path: Path
) -> None:
    recorded.connection.execute("UPDATE messages SET content = CAST(x'61ff620a' AS TEXT)")
    recorded.connection.commit()
    target = tmp_path / "export.jsonl"
    with pytest.raises(StorageError) as caught:
        db("export", target)
    assert "is damaged" in str(caught.value) and "check --repair" in str(caught.value)
    assert "with text" not in str(caught.value) and "\n" not in str(caught.value)
    assert list(tmp_path.glob("export*")) == []


def test_nothing_is_forgotten_while_a_repair_may_bring_it_back(
    recorded: Recorded, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgespec.cache.upkeep.lock.WAIT_S", 0.05)
    with upkeep_lock(path):
        assert "another command repairs" in refused(BusyError, "forget", "--all", "--yes")
    left = path.with_name(f".{path.name}.backup-000009.abc.part")
    left.write_bytes(b"about rain and wind")
    db("forget", "--conversation", "rain")
    assert not left.exists()
