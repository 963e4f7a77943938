"""Which migrations a database has had: asked at every start, so without what applies them.

sqlite-utils writes down each migration in a table of its own and takes long to import.
"""

from __future__ import annotations

import sqlite3

MIGRATION_SET = "edgespec"
NAMES = (
    *("m001_facts", "m002_tokens", "m003_drafting", "m004_conversations"),
    "m005_chats",
)
"""Names of all migrations (`edgespec.cache.migrations`), in order."""

UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Japanese, Chinese
)
"""Letters of scripts without spaces between words, as ranges; part of the schema (m005_chats)."""


def is_newest(connection: sqlite3.Connection) -> bool:
    """True if every migration was applied, and no other; raises sqlite3.Error.

    False, too, where nothing can be read: applying what is missing will tell why.
    """
    try:
        rows = connection.execute(
            "SELECT name FROM _sqlite_migrations WHERE migration_set = ?", [MIGRATION_SET]
        ).fetchall()
    except sqlite3.OperationalError:  # in a new database there is no such table
        return False
    return {name for (name,) in rows} == set(NAMES)
