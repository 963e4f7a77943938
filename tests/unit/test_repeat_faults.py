"""Faults of the token database, as the script that repeats them causes them."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from pathlib import Path

import pytest
from repeat_faults import Home, flipped, locked

from edgespec.cache.database import open_database


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home with an empty database, whose commands do nothing."""
    found = Home(tmp_path, tmp_path / "model.gguf")
    open_database(found.database).close()
    monkeypatch.setattr(Home, "run", lambda _self, *_arguments: None)
    return found


def test_at_most_a_page_is_flipped_and_every_byte_of_it_is_another(home: Home) -> None:
    content = home.database.read_bytes()
    sizes = set()
    for seed in range(20):
        with contextlib.contextmanager(flipped)(home, random.Random(seed)):
            damaged = home.database.read_bytes()
        places = [place for place, byte in enumerate(damaged) if byte != content[place]]
        assert len(damaged) == len(content)
        assert places == list(range(places[0], places[-1] + 1))
        sizes.add(len(places))
        home.database.write_bytes(content)
    assert {1, 16} <= sizes and max(sizes) <= 4096


def test_a_lock_is_held_meanwhile_and_gone_afterwards(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random.Random, "uniform", lambda *_bounds: 0.0)
    with contextlib.closing(sqlite3.connect(home.database, timeout=0.0)) as connection:
        with contextlib.contextmanager(locked)(home, random.Random(1)):
            while True:  # until the other thread has it
                try:
                    connection.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError as error:
                    assert "locked" in str(error)
                    break
                connection.rollback()
        connection.execute("BEGIN EXCLUSIVE")
        connection.rollback()
