"""The schema, as numbered migrations; each runs once, in a transaction of its own.

Never edit a migration that was released: add one, and its name to `edgespec.cache.schema`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from sqlite_utils import Database, Migrations
from sqlite_utils.db import Table

from edgespec.cache.schema import MIGRATION_SET, NAMES
from edgespec.errors import StorageError

migrations = Migrations(MIGRATION_SET)


@migrations()
def m001_facts(db: Database) -> None:
    """Measurements of this machine, as JSON by kind and key."""
    table = db["facts"]
    assert isinstance(table, Table)
    table.create(
        {"kind": str, "key": str, "value": str, "updated": float},
        pk=("kind", "key"),
        not_null={"value"},
    )


@migrations()
def m002_tokens(db: Database) -> None:
    """Recorded token sequences, cut into blocks, and the index of their contexts.

    AUTOINCREMENT, so that neither a sequence's number nor a position is ever used twice: both tell
    the order of recording, whatever the clock says. `grams` is an index only: everything in it can
    be computed from the blocks.
    """
    _run(
        db,
        "CREATE TABLE vocabularies (id INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL UNIQUE,"
        " num_tokens INTEGER NOT NULL)",
        "CREATE TABLE scopes (id INTEGER PRIMARY KEY,"
        " vocabulary INTEGER NOT NULL REFERENCES vocabularies (id),"
        " tier TEXT NOT NULL CHECK (tier IN ('model', 'statistics')), UNIQUE (vocabulary, tier))",
        "CREATE TABLE files (id INTEGER PRIMARY KEY, scope INTEGER NOT NULL REFERENCES scopes (id),"
        " path TEXT NOT NULL, sha256 TEXT NOT NULL, num_bytes INTEGER NOT NULL,"
        " UNIQUE (scope, path))",
        "CREATE TABLE sequences (id INTEGER PRIMARY KEY AUTOINCREMENT,"
        " scope INTEGER NOT NULL REFERENCES scopes (id), conversation TEXT,"
        " file INTEGER REFERENCES files (id), first_block INTEGER NOT NULL,"
        " num_context INTEGER NOT NULL, num_tokens INTEGER NOT NULL,"
        " created REAL NOT NULL, touched INTEGER NOT NULL)",
        "CREATE INDEX sequences_touched ON sequences (touched)",
        "CREATE INDEX sequences_conversation ON sequences (conversation)"
        " WHERE conversation IS NOT NULL",
        "CREATE INDEX sequences_file ON sequences (file) WHERE file IS NOT NULL",
        "CREATE TABLE blocks (block INTEGER PRIMARY KEY AUTOINCREMENT,"
        " sequence INTEGER NOT NULL, tokens BLOB NOT NULL)",
        "CREATE TABLE grams (scope INTEGER NOT NULL, key INTEGER NOT NULL,"
        " position INTEGER NOT NULL, PRIMARY KEY (scope, key, position)) WITHOUT ROWID",
    )


@migrations()
def m003_drafting(db: Database) -> None:
    """What drafting learned: n-grams across two vocabularies, acceptance counts, measured costs."""
    _run(
        db,
        "CREATE TABLE ngram_caches (target TEXT NOT NULL, drafter TEXT NOT NULL,"
        " value BLOB NOT NULL, updated REAL NOT NULL, PRIMARY KEY (target, drafter))",
        "CREATE TABLE calibrations (target TEXT NOT NULL, drafter TEXT NOT NULL,"
        " value BLOB NOT NULL, updated REAL NOT NULL, PRIMARY KEY (target, drafter))",
        "CREATE TABLE costs (target TEXT NOT NULL, drafter TEXT NOT NULL,"
        " value BLOB NOT NULL, updated REAL NOT NULL, PRIMARY KEY (target, drafter))",
    )


@migrations()
def m004_conversations(db: Database) -> None:
    """Conversations and their messages, searchable; the search index keeps no text of its own."""
    _run(
        db,
        "CREATE TABLE conversations (number INTEGER PRIMARY KEY AUTOINCREMENT,"
        " id TEXT NOT NULL UNIQUE, title TEXT NOT NULL, created REAL NOT NULL)",
        "CREATE TABLE messages (id INTEGER PRIMARY KEY AUTOINCREMENT,"
        " conversation TEXT NOT NULL REFERENCES conversations (id),"
        " role TEXT NOT NULL, content TEXT NOT NULL, created REAL NOT NULL)",
        "CREATE INDEX messages_conversation ON messages (conversation, id)",
    )
    messages = db["messages"]
    assert isinstance(messages, Table)
    messages.enable_fts(["content"], fts_version="FTS5", tokenize="unicode61", create_triggers=True)


def upgrade(db: Database, where: str, backup: Callable[[int], None] | None = None) -> None:
    """Apply what is missing; raises StorageError for a database of a newer EdgeSpec.

    `backup` is called with the number of the old schema before anything in it is changed. Of
    several processes that open an old database at once, one migrates and the others wait.
    """
    if not _pending(db, where):
        return
    db.conn.execute("BEGIN IMMEDIATE")
    try:
        applied = len(migrations.applied(db))
        if _pending(db, where):  # another process may have been first
            if applied and backup is not None:
                backup(applied)
            migrations.apply(db)
        db.conn.execute("COMMIT")
    except BaseException:
        if db.conn.in_transaction:
            db.conn.execute("ROLLBACK")
        raise


def _pending(db: Database, where: str) -> bool:
    """True if a migration is missing; raises StorageError if one is unknown.

    Raises sqlite3.DatabaseError if they cannot have been applied: one came after one that is gone.
    """
    applied = {migration.name for migration in migrations.applied(db)}
    unknown = applied - set(NAMES)
    if applied & set(NAMES) != set(NAMES[: len(applied) - len(unknown)]) or (
        unknown and len(applied) <= len(NAMES)
    ):
        raise sqlite3.DatabaseError("the list of migrations is damaged")
    if unknown:
        raise StorageError(
            f"the database {where} was written by a newer EdgeSpec ({', '.join(sorted(unknown))})",
            "update EdgeSpec or set EDGESPEC_HOME to another folder",
        )
    return bool(migrations.pending(db))


def _run(db: Database, *statements: str) -> None:
    for statement in statements:
        db.conn.execute(statement)
