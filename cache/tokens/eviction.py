"""Keeping recorded tokens below their limit: what was of no use for longest is forgotten first.

Age is counted in recordings, not in seconds: `touched` is the number of the newest sequence at the
time of the last use. Imported text may fill at most half of what is there before its own oldest
sequences go first, so that one large import does not push out what the target said.
Messages of chats are no part of this: only their owner deletes them.
"""

from __future__ import annotations

import sqlite3

from edgespec.cache.database import transaction
from edgespec.cache.tokens.sequences import SequenceStore

DEFAULT_LIMIT = 256 << 20
"""Bytes that recorded tokens may take, their index included."""

_TOKEN_BYTES = 25
"""Of a recorded token on disk, in its block and in the index (docs/decisions/0010)."""

_ROOM = 0.95
"""Eviction goes on until this share of the limit is in use, so that it is not needed each turn."""

_AT_ONCE = 16
"""Most sequences forgotten in one transaction: others can write in between."""

_STATISTICS_SHARE = 0.5


def token_bytes(connection: sqlite3.Connection) -> int:
    """Bytes that recorded tokens take."""
    query = "SELECT coalesce(sum(num_tokens), 0) FROM sequences"
    return _TOKEN_BYTES * int(connection.execute(query).fetchone()[0])


def evict(connection: sqlite3.Connection, limit_bytes: int) -> int:
    """Forget sequences until tokens are within their limit; the number of tokens forgotten.

    Raises sqlite3.Error; what was forgotten before stays forgotten.
    """
    left = token_bytes(connection)
    if left <= limit_bytes:
        return 0
    store = SequenceStore(connection)
    num_forgotten = 0
    while left > limit_bytes * _ROOM:
        with transaction(connection):
            victims = _victims(connection)
            for sequence in victims:
                num_tokens = store.remove(sequence)
                num_forgotten += num_tokens
                left -= _TOKEN_BYTES * num_tokens
                if left <= limit_bytes * _ROOM:
                    break
        if not victims:
            break
    return num_forgotten


def _victims(connection: sqlite3.Connection) -> list[int]:
    """The sequences to go next, the one unused for longest first."""
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
        "SELECT sequences.id FROM sequences JOIN scopes ON scopes.id = scope"
        " WHERE tier IN (?, ?) ORDER BY touched, sequences.id LIMIT ?",
        (*tiers, _AT_ONCE),
    )
    return [number for (number,) in rows]
