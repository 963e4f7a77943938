"""Importing text files into the statistics tier: each in one transaction, again if it changed."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgespec.cache.database import transaction
from edgespec.cache.tokens.eviction import DEFAULT_LIMIT, evict
from edgespec.cache.tokens.sequences import MAX_CONTEXT, Recording, SequenceStore, VocabularyKey
from edgespec.cache.tokens.text_files import Found, read_text

SEQUENCE_TOKENS = 4096
"""Files are cut into sequences of this many tokens, which can be forgotten one by one."""

Tokenize = Callable[[bytes], list[int]]
Outcome = Literal["imported", "unchanged", "not text", "not readable"]


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of one file; `num_forgotten` tokens had to make room."""

    found: Found
    outcome: Outcome
    num_tokens: int = 0
    num_forgotten: int = 0


class Importer:
    """Imports files for one vocabulary; every method raises sqlite3.Error.

    An interrupt loses at most the file under way.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        vocabulary: VocabularyKey,
        tokenize: Tokenize,
        limit_bytes: int = DEFAULT_LIMIT,
    ) -> None:
        """`tokenize` reads text with the target's vocabulary, without special tokens."""
        self._connection = connection
        self._tokenize = tokenize
        self._limit_bytes = limit_bytes
        self._store = SequenceStore(connection)
        self._scope = self._store.scope(vocabulary, "statistics")

    def add(self, files: Iterable[Found]) -> Iterator[Imported]:
        """Import `files`, lazily, telling of each what became of it."""
        for found in files:
            yield self._add(found)

    def forget_missing(self, folders: Iterable[Path]) -> int:
        """Forget the imported files below `folders` that are gone; how many there were."""
        below = tuple(folder.resolve() for folder in folders)
        rows = self._connection.execute(
            "SELECT id, path FROM files WHERE scope = ?", (self._scope,)
        ).fetchall()
        gone = [
            number
            for number, path in rows
            if any(Path(path).is_relative_to(folder) for folder in below)
            and not Path(path).exists()
        ]
        for number in gone:
            with transaction(self._connection):
                self._forget(number)
        return len(gone)

    def _add(self, found: Found) -> Imported:
        try:
            content = read_text(found.path)
        except OSError:
            return Imported(found, "not readable")
        if content is None:
            return Imported(found, "not text")
        sha256 = hashlib.sha256(content).hexdigest()
        name = _name(found.path)
        known = self._connection.execute(
            "SELECT id, sha256 FROM files WHERE scope = ? AND path = ?", (self._scope, name)
        ).fetchone()
        if known and known[1] == sha256:
            return Imported(found, "unchanged")
        tokens = self._tokenize(content)
        with transaction(self._connection):
            if known:
                self._forget(known[0])
            self._record(name, sha256, found.num_bytes, tokens)
        num_forgotten = evict(self._connection, self._limit_bytes)
        return Imported(found, "imported", len(tokens), num_forgotten)

    def _record(self, name: str, sha256: str, num_bytes: int, tokens: list[int]) -> None:
        file = self._connection.execute(
            "INSERT INTO files (scope, path, sha256, num_bytes) VALUES (?, ?, ?, ?)",
            (self._scope, name, sha256, num_bytes),
        ).lastrowid
        for start in range(0, len(tokens), SEQUENCE_TOKENS):
            self._store.add(
                self._scope,
                Recording(
                    tokens[start : start + SEQUENCE_TOKENS],
                    tokens[max(start - MAX_CONTEXT, 0) : start],
                    file=file,
                ),
            )

    def _forget(self, file: int) -> None:
        rows = self._connection.execute("SELECT id FROM sequences WHERE file = ?", (file,))
        for (sequence,) in rows.fetchall():
            self._store.remove(sequence)
        self._connection.execute("DELETE FROM files WHERE id = ?", (file,))


def _name(path: Path) -> str:
    """A path as text that SQLite takes, whatever bytes are in it."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
