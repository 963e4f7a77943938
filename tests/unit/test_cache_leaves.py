"""Rows read from single pages are those that SQLite reads, whatever became of the other pages."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgespec.cache.leaves import NUM_COLUMNS, NUM_KEYS, Leaves, open_leaves

EVERY = "typeof(c0) <> 'none'"

values = st.one_of(
    st.none(),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.floats(allow_nan=False),
    st.text(max_size=60),
    st.binary(max_size=60),
    st.integers(0, 40_000).map(lambda size: bytes(range(256)) * (size // 256) + bytes(size % 256)),
)
rows = st.lists(st.tuples(values, values, values), max_size=40)


def fill(
    path: Path, tables: list[list[tuple[Any, ...]]], page_bytes: int, num_deleted: int
) -> list[tuple[Any, ...]]:
    """Tables with an index each, of which some rows were deleted; the rows that are left."""
    left: list[tuple[Any, ...]] = []
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA page_size={page_bytes}")
        connection.execute("PRAGMA secure_delete=ON").fetchall()
        for number, table in enumerate(tables):
            connection.execute(f"CREATE TABLE t{number} (a, b, c)")
            connection.execute(f"CREATE INDEX i{number} ON t{number} (a, b)")
            connection.executemany(f"INSERT INTO t{number} VALUES (?, ?, ?)", table)
            connection.execute(f"DELETE FROM t{number} WHERE rowid <= ?", (num_deleted,))
            left += connection.execute(f"SELECT rowid, * FROM t{number}").fetchall()
        connection.commit()
    return left


def padded(row: tuple[Any, ...], size: int) -> tuple[Any, ...]:
    return row + (None,) * (size - len(row))


def read(path: Path) -> Counter[tuple[Any, ...]]:
    with open_leaves(path) as leaves:
        return Counter((number, *row) for number, row in leaves.rows())


def is_schema(row: tuple[Any, ...]) -> bool:
    """The schema's own rows, where it has more than its first page, are rows like others."""
    return row[1] in ("table", "index")


@settings(max_examples=30, deadline=None)
@given(
    st.lists(rows, min_size=1, max_size=3), st.sampled_from([512, 4096, 65536]), st.integers(0, 9)
)
def test_the_leaves_hold_every_row_and_no_other(
    tables: list[list[tuple[Any, ...]]], page_bytes: int, num_deleted: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "any.db")
        left = fill(path, tables, page_bytes, num_deleted)
        before = path.read_bytes()
        expected = Counter(padded(row, NUM_COLUMNS + 1) for row in left)
        assert Counter({r: n for r, n in read(path).items() if not is_schema(r)}) == expected
        assert path.read_bytes() == before
        with open_leaves(path) as leaves:
            entries = Counter(entry for page in leaves.entries(EVERY) for entry in page)
        indexed = Counter(padded((a, b, number), NUM_KEYS) for number, a, b, _c in left)
        assert entries == indexed


def filled(path: Path, num_rows: int = 3000) -> list[tuple[Any, ...]]:
    table = [(number, f"text {number} " * 8, bytes(number % 50)) for number in range(num_rows)]
    left = fill(path, [table, [("other", 1.5, b"x" * 9000)]], 4096, 0)
    return [padded(row, NUM_COLUMNS + 1) for row in left]


def kinds(path: Path) -> dict[int, str]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return dict(connection.execute("SELECT pageno, pagetype FROM dbstat"))


def overwrite(path: Path, page: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(content)


def test_no_page_above_the_leaves_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "any.db"
    expected = Counter(filled(path))
    inner = [page for page, kind in kinds(path).items() if kind == "internal"]
    assert inner
    for page in (1, *inner):
        overwrite(path, page, b"\xa5" * 4096)
    with contextlib.closing(sqlite3.connect(path)) as connection, pytest.raises(sqlite3.Error):
        connection.execute("SELECT * FROM t0").fetchall()
    assert read(path) == expected


@pytest.mark.parametrize("start", range(0, 100, 4))
def test_no_field_of_the_header_is_needed(tmp_path: Path, start: int) -> None:
    path = tmp_path / "any.db"
    expected = Counter(filled(path, 200))
    for field in (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\x01\xa0\x03"):
        with path.open("r+b") as file:
            file.seek(start)
            file.write(field)
        assert read(path) == expected


@pytest.mark.parametrize("high", [2, 4, 8, 16, 32, 64, 128])
def test_a_wrong_page_size_is_seen_by_the_pages(tmp_path: Path, high: int) -> None:
    """Whole pages of that size would be in the file, too."""
    path = tmp_path / "any.db"
    expected = Counter(filled(path, 1200))
    content = bytearray(path.read_bytes())
    content[16] = high
    path.write_bytes(content + bytes(-len(content) % 32768))
    assert read(path) == expected


def test_a_damaged_row_hides_no_other_page_and_little_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "any.db"
    expected = Counter(filled(path))
    leaves = [page for page, kind in kinds(path).items() if kind == "leaf"]
    content = path.read_bytes()
    damaged = next(p for p in leaves[3:] if content[(p - 1) * 4096] == 0x0D)
    page = content[(damaged - 1) * 4096 : damaged * 4096]
    middle = int.from_bytes(page[8 + 20 : 8 + 22], "big")  # where the eleventh row begins
    overwrite(path, damaged, page[:middle] + b"\xff" * 12 + page[middle + 12 :])
    found = read(path)
    lost, gained = expected - found, found - expected
    assert 1 <= sum(lost.values()) <= 3
    assert sum(gained.values()) <= 3


@pytest.mark.parametrize("size", [0, 1, 99, 100, 4095, 4096, 5000, 12288])
@pytest.mark.parametrize("byte", [0, 10, 13, 0xA5])
def test_what_is_no_database_has_no_rows(tmp_path: Path, size: int, byte: int) -> None:
    path = tmp_path / "any.db"
    path.write_bytes(bytes([byte]) * size)
    assert read(path) == Counter()
    assert [file.name for file in tmp_path.iterdir()] == ["any.db"]


def test_a_cut_off_file_keeps_the_pages_that_are_there(tmp_path: Path) -> None:
    path = tmp_path / "any.db"
    expected = Counter(filled(path))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2 + 1000])
    found = read(path)
    assert sum(expected.values()) // 3 < sum(found.values()) < sum(expected.values())
    assert found <= expected


def test_the_log_is_read_and_left_as_it_is(tmp_path: Path) -> None:
    """As after a process was killed: what it wrote last is in the log alone."""
    path, log = tmp_path / "any.db", tmp_path / "any.db-wal"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("PRAGMA wal_autocheckpoint=0").fetchall()
        writer.execute("CREATE TABLE t (a, b)")
        writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        writer.executemany("INSERT INTO t VALUES (?, ?)", [(n, "later") for n in range(50)])
        killed = tmp_path / "killed"
        killed.mkdir()
        for file in (path, log):
            (killed / file.name).write_bytes(file.read_bytes())
    kept = (killed / log.name).read_bytes()
    overwrite(killed / path.name, 1, b"\0" * 100)
    found = read(killed / path.name)
    assert found == Counter(padded((n + 1, n, "later"), NUM_COLUMNS + 1) for n in range(50))
    assert (killed / log.name).read_bytes() == kept


def test_text_that_is_none_any_more_is_still_read(tmp_path: Path) -> None:
    path = tmp_path / "any.db"
    fill(path, [[("a letter", 1, 2)]], 4096, 0)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"a letter", b"a l\xff\xfeter"))
    assert [row[1] for row in read(path)] == [
        "a l\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}ter"
    ]


def test_the_copy_is_its_owners_alone_and_goes_away(tmp_path: Path) -> None:
    path = tmp_path / "any.db"
    filled(path, 10)
    with pytest.raises(KeyboardInterrupt), open_leaves(path) as leaves:
        assert isinstance(leaves, Leaves)
        (folder,) = (file for file in tmp_path.iterdir() if file.is_dir())
        assert folder.stat().st_mode & 0o077 == 0
        raise KeyboardInterrupt
    assert [file.name for file in tmp_path.iterdir()] == ["any.db"]
