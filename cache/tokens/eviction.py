"""Keeping the database below its limit: what was of no use for longest is forgotten first.

Age is counted in recordings, not in seconds: `touched` is the number of the newest sequence at the
time of the last use. Imported text may fill at most half of what is there before its own oldest
sequences go first, so that one large import does not push out what the target said. The messages of
a conversation go together with the last sequence that was learned from it.
"""

from __future__ import annotations

import sqlite3

from edgespec.cache.database import transaction
from edgespec.cache.tokens.sequences import SequenceStore

DEFAULT_LIMIT = 256 << 20
"""Bytes that the database may take."""

_ROOM = 0.95
"""Eviction goes on until this share of the limit is in use, so that it is not needed each turn."""

_AT_ONCE = 16
"""Most sequences forgotten in one transaction: others can write in between."""

_STATISTICS_SHARE = 0.5


def bytes_in_use(connection: sqlite3.Connection) -> int:
    """Bytes of the pages that hold something."""
    pages, free, size = (
        int(connection.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size


def evict(connection: sqlite3.Connection, limit_bytes: int) -> int:
    """Forget sequences until the database is within its limit; the number of tokens forgotten.

    Raises sqlite3.Error; what was forgotten before stays forgotten.
    """
    if bytes_in_use(connection) <= limit_bytes:
        return 0
    store = SequenceStore(connection)
    num_forgotten = 0
    target = int(limit_bytes * _ROOM)
    while bytes_in_use(connection) > target:
        with transaction(connection):
            victims = _victims(connection)
            for sequence, conversation in victims:
                num_forgotten += store.remove(sequence)
                if conversation is not None:
                    _forget_if_nothing_is_left(connection, conversation)
                if bytes_in_use(connection) <= target:
                    break
        if not victims and not _forget_oldest_messages(connection):
            break
    return num_forgotten


def _victims(connection: sqlite3.Connection) -> list[tuple[int, str | None]]:
    """The sequences to go next and their conversations, the one unused for longest first."""
    by_tier = dict(
        connection.execute(
            "SELECT tier, sum(num_tokens) FROM sequences JOIN scopes ON scopes.id = scope"
            " GROUP BY tier"
        )
    )
    statistics = by_tier.get("statistics", 0)
    tiers = ("statistics", "model")
    if statistics > _STATISTICS_SHARE * sum(by_tier.values()):
        tiers = ("statistics", "statistics")
    rows = connection.execute(
        "SELECT sequences.id, conversation FROM sequences JOIN scopes ON scopes.id = scope"
        " WHERE tier IN (?, ?) ORDER BY touched, sequences.id LIMIT ?",
        (*tiers, _AT_ONCE),
    )
    return rows.fetchall()


def _forget_if_nothing_is_left(connection: sqlite3.Connection, conversation: str) -> bool:
    """Drop a conversation of which no sequence is recorded any more; whether it was dropped."""
    learned = connection.execute(
        "SELECT 1 FROM sequences WHERE conversation = ? LIMIT 1", (conversation,)
    )
    if learned.fetchone() is not None:
        return False
    connection.execute("DELETE FROM messages WHERE conversation = ?", (conversation,))
    connection.execute("DELETE FROM conversations WHERE id = ?", (conversation,))
    return True


def _forget_oldest_messages(connection: sqlite3.Connection) -> bool:
    """Drop the oldest conversation where no sequences are left; False if there is none.

    One that has a sequence of no tier stays: that file is damaged.
    """
    row = connection.execute("SELECT id FROM conversations ORDER BY number LIMIT 1").fetchone()
    if row is None:
        return False
    with transaction(connection):
        return _forget_if_nothing_is_left(connection, row[0])
