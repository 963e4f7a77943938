"""Whether the database is sound: pages, schema, content, and the two indexes that fit it.

SQLite checks neither types nor text nor tokens: a flipped byte in the middle of a message leaves
every page in order, and the message unreadable.
"""

from __future__ import annotations

import functools
import sqlite3

from edgespec.cache.chats.search import INDEXES
from edgespec.cache.database import DAMAGE, is_damage, open_in_memory, transaction

_INT, _REAL, _TEXT, _BLOB = "integer", "real", "text", "blob"
_PAIR = {"target": _TEXT, "drafter": _TEXT, "value": _BLOB, "updated": _REAL}
TYPES: dict[str, dict[str, str]] = {
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
    "conversations": {
        **{"id": _TEXT, "title": _TEXT, "created": _REAL, "updated": _REAL, "spoken": _REAL},
        **{"tip": _INT, "pinned": _INT, "deleted": _REAL, "origin": _TEXT, "settings": _TEXT},
        **{"num_messages": _INT},
    },
    "messages": {
        **{"conversation": _TEXT, "parent": _INT, "role": _TEXT, "content": _TEXT},
        **{"created": _REAL, "state": _TEXT, "model": _TEXT, "figures": _TEXT, "sources": _TEXT},
        **{"writer": _TEXT},
    },
}
"""Columns and their types; what may be missing where is SQLite's to check."""


def problems(connection: sqlite3.Connection) -> list[str]:
    """What is wrong with the file, in SQLite's words and ours; empty if nothing is."""
    try:
        found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(10)")]
        found = [line for line in found if line != "ok"]
        found = found or _schema_problems(connection) or content_problems(connection)
        return found or [*_index_problems(connection), *_search_problems(connection)]
    except DAMAGE as error:
        if not is_damage(error):
            raise
        return [str(error)]


_NAMES = (
    "SELECT type, name, '' FROM sqlite_schema UNION ALL SELECT 'column', of.name, has.name"
    " FROM sqlite_schema AS of JOIN pragma_table_info(of.name) AS has"
)
"""Every table, index, trigger and column."""


def _schema_problems(connection: sqlite3.Connection) -> list[str]:
    return [
        f"the schema lacks the {kind} {name}{'.' if column else ''}{column}"
        for kind, name, column in sorted(_names_of_new() - set(connection.execute(_NAMES)))
    ]


@functools.cache
def _names_of_new() -> frozenset[tuple[str, str, str]]:
    """What is in the schema of a new database."""
    with open_in_memory() as empty:
        return frozenset(empty.connection.execute(_NAMES))


def _index_problems(connection: sqlite3.Connection) -> list[str]:
    """Compare the number of index rows with that of recorded tokens; both come in one snapshot."""
    rows, expected = connection.execute(
        "SELECT (SELECT count(*) FROM grams),"
        " (SELECT coalesce(sum(num_tokens - (num_context = 0)), 0) FROM sequences)"
    ).fetchone()
    if rows != expected:
        return [f"the token index has {rows} rows for {expected} tokens"]
    return []


def _search_problems(connection: sqlite3.Connection) -> list[str]:
    try:
        with transaction(connection):
            for index in INDEXES:
                connection.execute(
                    f"INSERT INTO {index} ({index}, rank) VALUES ('integrity-check', 1)"
                )
    except sqlite3.DatabaseError as error:
        if not is_damage(error):  # locked: not checked, not broken
            raise
        return [f"the search index does not fit the messages ({error})"]
    return []


def content_problems(connection: sqlite3.Connection) -> list[str]:
    """Tables with a value of a wrong type or with broken text, and tokens that are too few or many.

    Raises sqlite3.Error.
    """
    found = [f"{table} holds wrong values" for table in TYPES if not _is_typed(connection, table)]
    found += [f"{table} holds broken text" for table in TYPES if not _is_text(connection, table)]
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
    return list(TYPES[table].items())
