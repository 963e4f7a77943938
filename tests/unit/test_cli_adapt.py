"""`edgespec adapt` on files of the tests' own, in this process; errors are single lines."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from adapt_support import learned
from click.testing import Result
from command_support import refusal, run_command

from edgespec.errors import EdgeSpecError, StorageError, UsageError
from edgespec.learning.online.adaptations import AdaptationStore, History, Pair, Saved, read

GEMMA = Pair("1" * 32, "2" * 32, "qwen", "gemma")
SMOL = Pair("1" * 32, "3" * 32, "qwen", "smol")
HISTORY = History(3, 40, 2000, 0.7125, 0.75)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AdaptationStore:
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path / "home"))
    return AdaptationStore(tmp_path / "home" / "adaptations")


@pytest.fixture
def both(store: AdaptationStore) -> AdaptationStore:
    for pair in (GEMMA, SMOL):
        store.save(Saved(pair, HISTORY, learned()))
    return store


def adapt(*arguments: str | Path, answer: str | None = None) -> Result:
    return run_command("adapt", *arguments, answer=answer)


def refused(kind: type[EdgeSpecError], *arguments: str | Path) -> str:
    return refusal(kind, "adapt", *arguments)


def test_nothing_was_learned_at_first(store: AdaptationStore, tmp_path: Path) -> None:
    assert adapt("status").stdout == ""
    assert "nothing" in adapt("status").stderr
    assert json.loads(adapt("status", "--json").stdout) == []
    assert "nothing" in adapt("reset").stderr
    assert "nothing was learned" in refused(UsageError, "export", tmp_path / "out")
    assert not store.folder.exists()


def test_status_tells_of_every_pair(both: AdaptationStore) -> None:
    lines = adapt("status").stdout.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("gemma for qwen: version 3, 40 answers, 2000 guesses judged,")
    assert "right 0.713 alone and 0.750 as served" in lines[0] or "0.712 alone" in lines[0]
    found = json.loads(adapt("status", "--json").stdout)
    assert [entry["drafter_name"] for entry in found] == ["gemma", "smol"]
    assert found[0]["bytes"] == both.path(GEMMA).stat().st_size
    assert found[0]["positions_kept"] == len(learned().memory.said)


def test_status_tells_of_what_cannot_be_read(both: AdaptationStore) -> None:
    both.path(SMOL).write_bytes(b"something else")
    lines = adapt("status").stdout.splitlines()
    assert len(lines) == 2
    assert "is of another kind" in lines[1]
    assert "problem" in json.loads(adapt("status", "--json").stdout)[1]


def test_reset_forgets_one_or_all(both: AdaptationStore) -> None:
    assert "add --yes" in refused(UsageError, "reset")
    adapt("reset", "--drafter", "gemma", "--yes")
    assert both.all() == [both.path(SMOL)]
    both.path(SMOL).write_bytes(b"something else")
    adapt("reset", "--yes")
    assert both.all() == []


def test_what_is_exported_can_be_imported(both: AdaptationStore, tmp_path: Path) -> None:
    file = tmp_path / "carried"
    assert "say which" in refused(UsageError, "export", file)
    assert "by nobody" in refused(UsageError, "export", file, "--drafter", "nobody")
    adapt("export", file, "--drafter", "smol")
    assert read(file).pair == SMOL
    adapt("reset", "--yes")
    assert "smol for qwen" in adapt("import", file).stdout
    assert both.load(SMOL) is not None
    assert "already" in refused(UsageError, "import", file)
    newer = Saved(SMOL, dataclasses.replace(HISTORY, version=9), learned())
    both.save(newer)
    adapt("import", file, "--yes")
    loaded = both.load(SMOL)
    assert loaded is not None
    assert loaded.history.version == 3


def test_a_damaged_file_is_not_imported(both: AdaptationStore, tmp_path: Path) -> None:
    file = tmp_path / "cut"
    file.write_bytes(both.path(SMOL).read_bytes()[:-1])
    before = both.path(SMOL).read_bytes()
    assert "cut off or damaged" in refused(StorageError, "import", file, "--yes")
    assert both.path(SMOL).read_bytes() == before


def test_an_export_that_cannot_be_written_is_told(both: AdaptationStore, tmp_path: Path) -> None:
    out = tmp_path / "missing" / "out"
    assert "cannot write" in refused(StorageError, "export", out, "--drafter", "smol")
