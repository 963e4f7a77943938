"""The rows on each leaf page of a SQLite file, whatever became of the pages that lead to it.

A damaged page hides all that is behind it: the first page every table, a root its own. The leaves
are still there, and SQLite reads them: each in turn is made the root of a table without types, in a
copy whose first page is a sound one. Which table a row was in is for the caller to tell.

Source: the SQLite file format, https://sqlite.org/fileformat2.html, sections 1.3 and 1.6.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import struct
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from edgespec.cache.database import DAMAGE

NUM_COLUMNS = 9
"""Values that are read of a table's row; what a row does not have is None."""

NUM_KEYS = 3
"""Values that are read of an index entry, likewise."""

_TABLE_LEAF = 0x0D
_INDEX_LEAF = 0x0A
_INDEX_INNER = 0x02
_HEADER_BYTES = 100
_MAGIC = b"SQLite format 3\0"
_USUAL_PAGE_BYTES = 4096

Row = tuple[Any, ...]


class Leaves:
    """Reads the leaf pages of a file, in the order of the file."""

    def __init__(self, pages: _Pages, file: BinaryIO, connection: sqlite3.Connection) -> None:
        """Use `open_leaves`: `connection` is to a copy of the database that may be changed."""
        self._pages = pages
        self._file = file
        self._connection = connection

    def rows(self) -> Iterator[tuple[int, Row]]:
        """The rowid and the NUM_COLUMNS values of each row of any table."""
        for page in _of_kind(self._file, self._pages, _TABLE_LEAF):
            found: dict[int, Row] = {}
            self._point("leaf", page)
            for order in ("ASC", "DESC"):  # a damaged row hides those behind it, from either end
                query = f"SELECT rowid, * FROM leaf ORDER BY rowid {order}"
                with contextlib.suppress(*DAMAGE):
                    for row in self._connection.execute(query):
                        found.setdefault(row[0], row[1:])
                    break
            yield from found.items()

    def entries(self, condition: str, values: Sequence[int] = ()) -> Iterator[list[Row]]:
        """The NUM_KEYS values of index entries that fulfil an SQL condition on c0, c1 and c2.

        A list for each page on which there are any: all of them are of one index.
        """
        for page in _of_kind(self._file, self._pages, _INDEX_LEAF):
            self._point("entry", page)
            found: list[Row] = []
            with contextlib.suppress(*DAMAGE):
                query = f"SELECT * FROM entry WHERE {condition}"
                for row in self._connection.execute(query, tuple(values)):
                    found.append(row)  # one by one: a damaged entry takes only what follows it
            if found:
                yield found

    def _point(self, table: str, page: int) -> None:
        execute = self._connection.execute
        execute("PRAGMA writable_schema=ON")
        execute("UPDATE sqlite_schema SET rootpage = ? WHERE name = ?", (page, table))
        execute("PRAGMA writable_schema=RESET")


@contextlib.contextmanager
def open_leaves(path: Path) -> Iterator[Leaves]:
    """The leaves of the database at `path` and its log, neither of which is changed.

    Takes as much disk as they do, beside them. Raises OSError or sqlite3.OperationalError if there
    is no room.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        copy = Path(folder, "copy.db")
        for suffix in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
        _merge_log(copy)
        pages = _pages_of(copy)
        _give_first_page(copy, pages)
        _flatten_indexes(copy, pages)
        with copy.open("rb") as file, contextlib.closing(_connect(copy)) as connection:
            yield Leaves(pages, file, connection)


def _connect(copy: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(copy, isolation_level=None)
    connection.text_factory = _text
    num_bytes = copy.stat().st_size
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, num_bytes)  # lengths may be damaged, too
    for setting in ("locking_mode=EXCLUSIVE", "journal_mode=OFF", "synchronous=OFF"):
        connection.execute(f"PRAGMA {setting}").fetchall()
    return connection


def _merge_log(copy: Path) -> None:
    """Write into the file what its log holds, as far as the log is whole."""
    _mend_header(copy)
    with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema=ON")  # without it a damaged schema is refused
        try:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
                raise
            # else the log's own first page is damaged, and what the file holds is all that is left
    copy.with_name(copy.name + "-wal").unlink(missing_ok=True)


def _mend_header(copy: Path) -> None:
    """Write anew what SQLite checks before it reads anything."""
    pages = _pages_of(copy)
    with copy.open("r+b") as file:
        header = bytearray(file.read(_HEADER_BYTES).ljust(_HEADER_BYTES, b"\0"))
        header[:16] = _MAGIC
        header[16:18] = (pages.num_bytes % 65535).to_bytes(2, "big")  # 65,536 is written as 1
        header[18:24] = bytes((2, 2, 0, 64, 32, 32))  # with a log, nothing reserved, the fractions
        header[28:32] = max(pages.count, 1).to_bytes(4, "big")
        header[44:72] = struct.pack(">7I", 4, 0, 0, 1, 0, 0, 0)  # format 4, no auto-vacuum, UTF-8
        header[72:92] = bytes(20)
        header[92:96] = header[24:28]  # the number of pages is that of the last change
        file.seek(0)
        file.write(header)


def _give_first_page(copy: Path, pages: _Pages) -> None:
    """Replace the first page by one of two tables, whose roots can be anywhere."""
    empty_file = copy.with_name("empty.db")
    with contextlib.closing(sqlite3.connect(empty_file)) as empty:
        columns = ", ".join(f"c{number}" for number in range(NUM_COLUMNS))
        keys = ", ".join(f"c{number}" for number in range(NUM_KEYS))
        empty.execute(f"PRAGMA page_size={pages.num_bytes}")
        empty.execute(f"CREATE TABLE leaf ({columns})")
        empty.execute(f"CREATE TABLE entry ({keys}, PRIMARY KEY ({keys})) WITHOUT ROWID")
        empty.commit()
    page = bytearray(empty_file.read_bytes()[: pages.num_bytes])
    count = max(pages.count, 3)  # the roots of both tables must be in the file
    page[28:32] = count.to_bytes(4, "big")
    with copy.open("r+b") as file:
        file.write(page)
        file.truncate(count * pages.num_bytes)


def _flatten_indexes(copy: Path, pages: _Pages) -> None:
    """Make leaves of the inner pages of indexes, which hold entries of their own.

    An inner entry is one of a leaf behind the number of a page, and the header of an inner page has
    the number of one more page at its end.
    """
    with copy.open("r+b") as file:
        for page in _of_kind(file, pages, _INDEX_INNER):
            file.seek((page - 1) * pages.num_bytes)
            content = bytearray(file.read(pages.num_bytes))
            count = min(int.from_bytes(content[3:5], "big"), (pages.num_bytes - 12) // 2)
            places = struct.unpack_from(f">{count}H", content, 12)
            content[0] = _INDEX_LEAF
            content[3:5] = count.to_bytes(2, "big")
            struct.pack_into(f">{count}H", content, 8, *((place + 4) & 0xFFFF for place in places))
            file.seek((page - 1) * pages.num_bytes)
            file.write(content)


@dataclass(frozen=True, slots=True)
class _Pages:
    """How many whole pages a file has, and how many bytes each."""

    count: int
    num_bytes: int


def _pages_of(path: Path) -> _Pages:
    """By the size that the header tells or the usual one, whichever more pages look like."""
    size = path.stat().st_size
    with path.open("rb") as file:
        told = int.from_bytes(file.read(18)[16:], "big")
        told = 65536 if told == 1 else told
        usual = _Pages(size // _USUAL_PAGE_BYTES, _USUAL_PAGE_BYTES)
        if told == _USUAL_PAGE_BYTES or told < 512 or told & (told - 1) or size % told:
            return usual
        possible = _Pages(size // told, told)
        return max(possible, usual, key=lambda pages: _num_fitting(file, pages))


def _num_fitting(file: BinaryIO, pages: _Pages) -> int:
    """Leaves whose cells begin in the second half, too: a page is filled from its end."""
    num_fitting = 0
    for kind in (_TABLE_LEAF, _INDEX_LEAF):
        for page in _of_kind(file, pages, kind):
            file.seek((page - 1) * pages.num_bytes)
            content = file.read(pages.num_bytes)
            count = min(int.from_bytes(content[3:5], "big"), (pages.num_bytes - 8) // 2)
            last = max(struct.unpack_from(f">{count}H", content, 8), default=0)
            num_fitting += pages.num_bytes // 2 <= last < pages.num_bytes
    return num_fitting


def _of_kind(file: BinaryIO, pages: _Pages, kind: int) -> Iterator[int]:
    """Numbers of the pages of a kind; the first page is ours."""
    for page in range(2, pages.count + 1):
        file.seek((page - 1) * pages.num_bytes)
        if file.read(1) == bytes([kind]):
            yield page


def _text(content: bytes) -> str:
    return content.decode("utf-8", "replace")
