"""The schema, as numbered migrations; each runs once, in a transaction of its own.

Never edit a migration that was released: add one, and its name to `edgespec.cache.schema`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from sqlite_utils import Database, Migrations
from sqlite_utils.db import Table

from edgespec.cache.schema import MIGRATION_SET, NAMES, UNSPACED
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


_SAID = "{row}state <> 'open'"
_UNSPACED = (
    _SAID
    + " AND length({row}content) < length(CAST({row}content AS BLOB))"  # not ASCII: much faster
    + f" AND {{row}}content GLOB '*[{UNSPACED}]*'"
)


@migrations()
def m005_chats(db: Database) -> None:
    """Conversations become trees of messages, with an order of their own, searched in two ways.

    `spoken` orders conversations: the time, but never before that of one spoken in earlier. An open
    answer is not indexed: it changes every second. Scripts without spaces are found by three
    letters, all others by words and their beginnings.
    """
    for name in ("messages_ai", "messages_ad", "messages_au"):
        db.conn.execute(f"DROP TRIGGER {name}")
    _run(
        db,
        "DROP TABLE messages_fts",
        "ALTER TABLE messages ADD COLUMN parent INTEGER",
        "ALTER TABLE messages ADD COLUMN state TEXT NOT NULL DEFAULT 'done'",
        "ALTER TABLE messages ADD COLUMN model TEXT",
        "ALTER TABLE messages ADD COLUMN figures TEXT",
        "ALTER TABLE messages ADD COLUMN sources TEXT",
        "ALTER TABLE messages ADD COLUMN writer TEXT",
        "ALTER TABLE conversations ADD COLUMN tip INTEGER",
        "ALTER TABLE conversations ADD COLUMN updated REAL NOT NULL DEFAULT 0.0",
        "ALTER TABLE conversations ADD COLUMN spoken REAL NOT NULL DEFAULT 0.0",
        "ALTER TABLE conversations ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE conversations ADD COLUMN deleted REAL",
        "ALTER TABLE conversations ADD COLUMN origin TEXT NOT NULL DEFAULT 'chat'",
        "ALTER TABLE conversations ADD COLUMN settings TEXT",
        "ALTER TABLE conversations ADD COLUMN num_messages INTEGER NOT NULL DEFAULT 0",
        "UPDATE messages SET parent = (SELECT max(before.id) FROM messages AS before"
        " WHERE before.conversation = messages.conversation AND before.id < messages.id)",
        "UPDATE conversations SET"
        " tip = (SELECT max(id) FROM messages WHERE conversation = conversations.id),"
        " num_messages = (SELECT count(*) FROM messages WHERE conversation = conversations.id)",
        "CREATE TRIGGER messages_more AFTER INSERT ON messages BEGIN UPDATE conversations"
        " SET num_messages = num_messages + 1 WHERE id = new.conversation; END",
        "CREATE TRIGGER messages_less AFTER DELETE ON messages BEGIN UPDATE conversations"
        " SET num_messages = num_messages - 1 WHERE id = old.conversation; END",
        "UPDATE conversations SET updated ="
        " coalesce((SELECT created FROM messages WHERE messages.id = tip), created)",
        "UPDATE conversations SET spoken = placed.spoken FROM (SELECT number, max(updated) OVER"
        " (ORDER BY tip, number) + 1e-6 * row_number() OVER (ORDER BY tip, number) AS spoken"
        " FROM conversations) AS placed WHERE placed.number = conversations.number",
        "CREATE INDEX conversations_spoken ON conversations (spoken)",
        "CREATE INDEX conversations_deleted ON conversations (deleted) WHERE deleted IS NOT NULL",
        "CREATE INDEX messages_open ON messages (id) WHERE state = 'open'",
    )
    _index(db, "messages_fts", "said", _SAID, "unicode61 remove_diacritics 2', prefix='2 3")
    _index(db, "messages_trigram", "said_unspaced", _UNSPACED, "trigram")


def _index(db: Database, index: str, view: str, which: str, tokenizer: str) -> None:
    """A search index that follows those messages for which the condition `which` holds."""
    condition = which.format(row="")
    old, new = which.format(row="old."), which.format(row="new.")
    add = f"INSERT INTO {index} (rowid, content) VALUES (new.id, new.content)"
    drop = f"INSERT INTO {index} ({index}, rowid, content) VALUES ('delete', old.id, old.content)"
    changed = "UPDATE OF content, state ON messages"
    _run(
        db,
        f"CREATE VIEW {view} AS SELECT id, content FROM messages WHERE {condition}",
        f"CREATE VIRTUAL TABLE {index} USING fts5 (content, content='{view}',"
        f" content_rowid='id', tokenize='{tokenizer}')",
        f"CREATE TRIGGER {index}_insert AFTER INSERT ON messages WHEN {new} BEGIN {add}; END",
        f"CREATE TRIGGER {index}_delete AFTER DELETE ON messages WHEN {old} BEGIN {drop}; END",
        f"CREATE TRIGGER {index}_before BEFORE {changed} WHEN {old} BEGIN {drop}; END",
        f"CREATE TRIGGER {index}_change AFTER {changed} WHEN {new} BEGIN {add}; END",
        f"INSERT INTO {index} ({index}) VALUES ('rebuild')",
    )


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
