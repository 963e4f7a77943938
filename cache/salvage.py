"""Saving what can still be read of a damaged database into a new one.

A damaged page hides the rows behind it. Each table is therefore read from its start and from its
end. Recorded sequences are indexed anew; one that lost a block is left out.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgespec.cache.codec import BLOCK, MAX_TOKEN, unpack
from edgespec.cache.database import DAMAGE, connect
from edgespec.cache.pairs import PAIR_TABLES
from edgespec.cache.tokens import Recording, TokenStore, transaction

_COLUMNS: dict[str, tuple[str, ...]] = {
    "facts": ("kind", "key", "value", "updated"),
    "vocabularies": ("id", "fingerprint", "num_tokens"),
    "scopes": ("id", "vocabulary", "tier"),
    "files": ("id", "scope", "path", "sha256", "num_bytes"),
    "conversations": ("number", "id", "title", "created"),
    "messages": ("id", "conversation", "role", "content", "created"),
    **dict.fromkeys(PAIR_TABLES, ("target", "drafter", "value", "updated")),
}
_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Salvaged:
    """Rows saved, and sequences that were there but could not be."""

    num_messages: int
    num_sequences: int
    num_lost_sequences: int


def salvage(damaged: Path, fresh: Path) -> Salvaged:
    """Copy what can be read of `damaged` into the new, empty database at `fresh`.

    Raises sqlite3.Error if `fresh` cannot be written.
    """
    with (
        contextlib.closing(connect(damaged, 1.0, 8 << 20)) as source,
        contextlib.closing(connect(fresh, 5.0, 8 << 20)) as target,
    ):
        num_messages = 0
        for table, columns in _COLUMNS.items():
            num_copied = _copy(source, target, table, columns)
            num_messages += num_copied if table == "messages" else 0
        kept, lost = _copy_sequences(source, target)
    return Salvaged(num_messages, kept, lost)


def _copy(
    source: sqlite3.Connection, target: sqlite3.Connection, table: str, columns: tuple[str, ...]
) -> int:
    names = ", ".join(columns)
    marks = ", ".join("?" * len(columns))
    num_copied = 0
    with transaction(target):
        for row in _rows_from_both_ends(source, table, names):
            with contextlib.suppress(sqlite3.IntegrityError):  # a value that damage made impossible
                num_copied += target.execute(
                    f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({marks})", row
                ).rowcount
    return num_copied


def _rows_from_both_ends(
    source: sqlite3.Connection, table: str, names: str
) -> Iterator[tuple[Any, ...]]:
    """Every row that can be reached; some come twice if the table is damaged."""
    for order in ("ASC", "DESC"):
        try:
            yield from source.execute(f"SELECT {names} FROM {table} ORDER BY rowid {order}")
        except DAMAGE:
            continue
        return


def _copy_sequences(source: sqlite3.Connection, target: sqlite3.Connection) -> tuple[int, int]:
    names = "id, scope, conversation, file, first_block, num_context, num_tokens, created"
    rows = {row[0]: row for row in _rows_from_both_ends(source, "sequences", names)}
    scopes = {number for (number,) in target.execute("SELECT id FROM scopes")}
    num_kept = 0
    ordered = sorted(row for row in rows.values() if all(isinstance(row[i], int) for i in (0, 1)))
    for start in range(0, len(ordered), _AT_ONCE):
        with transaction(target):
            for row in ordered[start : start + _AT_ONCE]:
                num_kept += row[1] in scopes and _copy_sequence(source, target, row)
    return num_kept, len(rows) - num_kept


def _copy_sequence(
    source: sqlite3.Connection, target: sqlite3.Connection, row: tuple[Any, ...]
) -> bool:
    _number, scope, conversation, file, first_block, num_context, num_tokens, created = row
    numbers = (first_block, num_context, num_tokens)
    if not all(isinstance(number, int) and 0 <= number < 1 << 40 for number in numbers):
        return False
    whole = _read(source, first_block, num_context + num_tokens)
    if whole is None:
        return False
    recording = Recording(whole[num_context:], whole[:num_context], conversation, file)
    TokenStore(target, clock=lambda: float(created)).add(scope, recording)
    return True


def _read(source: sqlite3.Connection, first_block: int, num_tokens: int) -> list[int] | None:
    """The tokens of a sequence, or None if some are missing or are no token ids."""
    tokens: list[int] = []
    try:
        rows: Iterable[tuple[bytes]] = source.execute(
            "SELECT tokens FROM blocks WHERE block BETWEEN ? AND ? ORDER BY block",
            (first_block, first_block + (num_tokens - 1) // BLOCK),
        )
        for (packed,) in rows:
            tokens += unpack(packed).tolist()
    except (*DAMAGE, TypeError):
        return None
    whole = np.asarray(tokens, dtype=np.int64)
    good = len(tokens) == num_tokens and bool((whole <= MAX_TOKEN).all())
    return tokens if good else None
