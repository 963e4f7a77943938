"""The schema, as numbered migrations; each runs once, in a transaction of its own.

Never edit a migration that was released: add one.
"""

from __future__ import annotations

from sqlite_utils import Database, Migrations
from sqlite_utils.db import Table

from edgespec.errors import StorageError

migrations = Migrations("edgespec")


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


_NAMES = ("m001_facts",)


def newest_schema() -> int:
    """Number of the newest migration that this EdgeSpec knows."""
    return len(_NAMES)


def upgrade(db: Database, where: str) -> None:
    """Apply what is missing; raises StorageError for a database of a newer EdgeSpec."""
    unknown = {applied.name for applied in migrations.applied(db)} - set(_NAMES)
    if unknown:
        raise StorageError(
            f"the database {where} was written by a newer EdgeSpec ({', '.join(sorted(unknown))})",
            "update EdgeSpec or set EDGESPEC_HOME to another folder",
        )
    if migrations.pending(db):
        migrations.apply(db)
