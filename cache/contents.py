"""What a sound file may still hold wrongly: SQLite checks neither types nor text nor tokens.

A flipped byte in the middle of a message leaves every page in order, and the message unreadable.
"""

from __future__ import annotations

import sqlite3

from edgespec.cache.database import DAMAGE, is_damage

_INT, _REAL, _TEXT, _BLOB = "integer", "real", "text", "blob"
_PAIR = {"target": _TEXT, "drafter": _TEXT, "value": _BLOB, "updated": _REAL}
_TYPES: dict[str, dict[str, str]] = {
    "facts": {"kind": _TEXT, "key": _TEXT, "value": _TEXT, "updated": _REAL},
    "vocabularies": {"fingerprint": _TEXT, "num_tokens": _INT},
    "scopes": {"vocabulary": _INT, "tier": _TEXT},
    "files": {"scope": _INT, "path": _TEXT, "sha256": _TEXT, "num_bytes": _INT},
    "sequences": {
        **{"scope": _INT, "conversation": _TEXT, "file": _INT, "first_block": _INT},
        **{"num_context": _INT, "num_tokens": _INT, "created": _REAL, "touched": _INT},
    },
    "blocks": {"sequence": _INT, "tokens": _BLOB},
    "ngram_caches": _PAIR,
    "calibrations": _PAIR,
    "costs": _PAIR,
    "conversations": {"id": _TEXT, "title": _TEXT, "created": _REAL},
    "messages": {"conversation": _TEXT, "role": _TEXT, "content": _TEXT, "created": _REAL},
}
"""Columns and their types; what may be missing where is SQLite's to check."""


def content_problems(connection: sqlite3.Connection) -> list[str]:
    """Tables with a value of a wrong type or with broken text, and tokens that are too few or many.

    Raises sqlite3.Error.
    """
    found = [f"{table} holds wrong values" for table in _TYPES if not _is_typed(connection, table)]
    found += [f"{table} holds broken text" for table in _TYPES if not _is_text(connection, table)]
    return found or _token_problems(connection)


def _is_typed(connection: sqlite3.Connection, table: str) -> bool:
    wrong = " OR ".join(f"typeof({name}) NOT IN ('{t}', 'null')" for name, t in _columns(table))
    query = f"SELECT EXISTS (SELECT 1 FROM {table} WHERE {wrong})"
    return not connection.execute(query).fetchone()[0]


def _is_text(connection: sqlite3.Connection, table: str) -> bool:
    names = [name for name, kind in _columns(table) if kind == _TEXT]
    if not names:
        return True
    try:
        for _row in connection.execute(f"SELECT {', '.join(names)} FROM {table}"):
            pass
    except DAMAGE as error:
        if not is_damage(error):
            raise
        return False
    return True


def _token_problems(connection: sqlite3.Connection) -> list[str]:
    num_bytes, expected = connection.execute(
        "SELECT (SELECT coalesce(sum(length(tokens)), 0) FROM blocks),"
        " (SELECT 4 * coalesce(sum(num_context + num_tokens), 0) FROM sequences)"
    ).fetchone()
    if num_bytes != expected:
        return [f"there are {num_bytes} bytes of recorded tokens instead of {expected}"]
    return []


def _columns(table: str) -> list[tuple[str, str]]:
    return list(_TYPES[table].items())
