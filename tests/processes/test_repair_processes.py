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
from filled_database import Kept, filled, kept, overwrite, pages_of

from edgespec.cache.database import open_database
from edgespec.cache.upkeep.check import problems
from edgespec.cache.upkeep.quarantine import unread

PATIENCE_S = 60.0


def repairing(home: Path, *options: str) -> subprocess.Popen[str]:
    """`edgespec db check --repair`, under way."""
    command = [sys.executable, "-m", "edgespec", "db", "check", "--repair", *options]
    environment = {**os.environ, "EDGESPEC_HOME": str(home)}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture
def whole(tmp_path: Path) -> Kept:
    """What can be had of a database that then loses a page: newer rows, and its backup."""
    path = tmp_path / "edgespec.db"
    filled(path)
    overwrite(path, pages_of(path, "blocks")[-1:])
    with repairing(tmp_path) as process:
        told = process.communicate(timeout=PATIENCE_S)[1]
    assert "took the place of the database" in told
    found = kept(path)
    path.unlink()
    (damaged,) = (file for file in tmp_path.glob("*.recovered-*") if file.name[-4:] != "-wal")
    damaged.rename(path)
    return found


def assert_saved(path: Path, expected: Kept) -> None:
    assert unread(path) == []
    assert kept(path) == expected
    with open_database(path) as database:
        assert problems(database.connection) == []
    assert not list(path.parent.glob(".*.part*"))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_repair_that_dies_at_any_moment_is_done_again(
    tmp_path: Path, whole: Kept, how: signal.Signals
) -> None:
    stream = random.Random(int(how))
    started = time.monotonic()
    with repairing(tmp_path, "--help") as idle:
        idle.communicate(timeout=PATIENCE_S)
    start_s = time.monotonic() - started
    for _ in range(8):
        with repairing(tmp_path) as process:
            time.sleep(start_s + stream.uniform(-0.1, 0.3))
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
