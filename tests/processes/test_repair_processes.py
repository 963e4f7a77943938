"""Repairs that die, meet others or may not write: done again, they save everything, once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filled_database import Kept, filled, kept
from token_support import count

from edgespec.cache.database import open_database
from edgespec.cache.upkeep.check import problems
from edgespec.cache.upkeep.quarantine import unread

PATIENCE_S = 60.0


def repairing(home: Path) -> subprocess.Popen[str]:
    """`edgespec db check --repair`, under way."""
    command = [sys.executable, "-m", "edgespec", "db", "check", "--repair"]
    environment = {**os.environ, "EDGESPEC_HOME": str(home)}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture
def whole(tmp_path: Path) -> Kept:
    """What is in a database of which then the first page is lost."""
    path = tmp_path / "edgespec.db"
    filled(path)
    found = kept(path)
    with path.open("r+b") as file:
        file.write(bytes(4096))
    return found


def assert_saved(path: Path, expected: Kept) -> None:
    assert unread(path) == []
    assert kept(path) == expected
    with open_database(path) as database:
        assert problems(database.connection) == []
        assert count(database.connection, "messages") == len(expected.messages)
        assert count(database.connection, "sequences") == len(expected.sequences)
    assert [file.name for file in path.parent.iterdir() if file.is_dir()] == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_repair_that_dies_at_any_moment_is_done_again(
    tmp_path: Path, whole: Kept, how: signal.Signals
) -> None:
    stream = random.Random(int(how))
    with repairing(tmp_path) as first:
        started = time.monotonic()
        first.communicate(timeout=PATIENCE_S)
    usual_s = time.monotonic() - started
    (tmp_path / "edgespec.db").unlink()
    (salvaged,) = tmp_path.glob("*.salvaged-*")
    salvaged.rename(tmp_path / "edgespec.db")
    for _ in range(6):
        with repairing(tmp_path) as process:
            time.sleep(stream.uniform(0.5, 1.0) * usual_s)
            process.send_signal(how)
            told = process.communicate(timeout=PATIENCE_S)[1]
        assert "Traceback" not in told
    with repairing(tmp_path) as last:
        told = last.communicate(timeout=PATIENCE_S)[1]
    assert last.returncode == 0, told
    assert_saved(tmp_path / "edgespec.db", whole)


def test_two_repairs_at_once_save_everything_once(tmp_path: Path, whole: Kept) -> None:
    with repairing(tmp_path) as one, repairing(tmp_path) as other:
        told = [process.communicate(timeout=PATIENCE_S)[1] for process in (one, other)]
    assert all("Traceback" not in text for text in told)
    assert 0 in (one.returncode, other.returncode), told
    with repairing(tmp_path) as last:
        last.communicate(timeout=PATIENCE_S)
    assert last.returncode == 0
    assert_saved(tmp_path / "edgespec.db", whole)
