"""What drafting learned of a pair of target and drafter: one blob a pair, in each of two tables.

ngram_caches   runs of drafter tokens to one target token, by vocabulary fingerprints
calibrations   acceptance estimates of each drafter, look-ups included
"""

from __future__ import annotations

import time
from typing import Literal

from edgespec.cache.database import DAMAGE, Database

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
