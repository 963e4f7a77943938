"""What was measured and learned: JSON values by kind and key, and a blob for each pair of models.

A pair is a target and a drafter. `ngram_caches` has runs of drafter tokens to one target token, by
vocabulary fingerprints; `calibrations` acceptance estimates of each drafter, look-ups included.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any, Literal

from edgespec.cache.database import DAMAGE, Database

_GET = "SELECT value FROM facts WHERE kind = ? AND key = ?"
_NEWEST = "SELECT value FROM facts WHERE kind = ? AND key GLOB ? ORDER BY updated DESC LIMIT 1"
_PUT = (
    "INSERT INTO facts (kind, key, value, updated) VALUES (?, ?, ?, ?)"
    " ON CONFLICT (kind, key) DO UPDATE SET value = excluded.value, updated = excluded.updated"
)


class Facts:
    """Remembers facts; a database that fails costs a measurement, never an answer."""

    def __init__(self, database: Database) -> None:
        """`database` stays the caller's to close."""
        self._connection = database.connection

    def get(self, kind: str, key: str) -> dict[str, Any] | None:
        """The remembered value, or None if there is none or it cannot be read."""
        return self._value(_GET, kind, key)

    def newest(self, kind: str, pattern: str) -> dict[str, Any] | None:
        """The value remembered last of those whose key matches a pattern of SQLite's GLOB."""
        return self._value(_NEWEST, kind, pattern)

    def _value(self, query: str, kind: str, key: str) -> dict[str, Any] | None:
        try:
            row = self._connection.execute(query, (kind, key)).fetchone()
            value = json.loads(row[0]) if row else None
        except (*DAMAGE, json.JSONDecodeError):
            return None
        return value if isinstance(value, dict) else None

    def put(self, kind: str, key: str, value: Mapping[str, Any]) -> bool:
        """Remember `value`; False if it could not be written (locked, full, read-only)."""
        try:
            with self._connection:
                self._connection.execute(_PUT, (kind, key, json.dumps(value), time.time()))
        except DAMAGE:
            return False
        return True

    def forget(self, kind: str) -> int:
        """Drop every fact of a kind and return how many there were; raises sqlite3.Error."""
        with self._connection:
            return self._connection.execute("DELETE FROM facts WHERE kind = ?", (kind,)).rowcount


PairTable = Literal["ngram_caches", "calibrations"]


class PairStore:
    """Keeps one blob for each pair; a database that fails costs what was learned, never an answer.

    The meaning of the bytes is the caller's.
    """

    def __init__(self, database: Database, table: PairTable) -> None:
        """`database` stays the caller's to close."""
        self._connection = database.connection
        self._load = f"SELECT value FROM {table} WHERE target = ? AND drafter = ?"
        self._save = (
            f"INSERT INTO {table} (target, drafter, value, updated) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (target, drafter) DO UPDATE"
            " SET value = excluded.value, updated = excluded.updated"
        )

    def load(self, target: str, drafter: str) -> bytes | None:
        """What was saved for this pair, or None if there is nothing that can be read."""
        try:
            row = self._connection.execute(self._load, (target, drafter)).fetchone()
        except DAMAGE:
            return None
        return row[0] if row and isinstance(row[0], bytes) else None

    def save(self, target: str, drafter: str, data: bytes) -> bool:
        """Remember `data`; False if it could not be written (locked, full, read-only)."""
        try:
            with self._connection:
                self._connection.execute(self._save, (target, drafter, data, time.time()))
        except DAMAGE:
            return False
        return True
