"""What the leaves of a damaged database hold, by table.

No leaf says whose it is: a row is known by the types of its values, which differ from table to
table (`edgespec.cache.migrations`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from edgespec.cache.fragments import Extent
from edgespec.cache.leaves import NUM_COLUMNS, Leaves, Row
from edgespec.cache.pairs import PairTable, table_of
from edgespec.cache.tokens import TIERS

_NONE: tuple[type, ...] = (type(None),)
_INT, _TEXT, _BLOB = (int,), (str,), (bytes,)
_REAL = (float, int)  # a whole number is kept as an integer

_SHAPES: dict[str, tuple[tuple[type, ...], ...]] = {
    "facts": (_TEXT, _TEXT, _TEXT, _REAL),
    "pairs": (_TEXT, _TEXT, _BLOB, _REAL),
    # the first column of the others is the rowid, which is not kept twice
    "vocabularies": (_NONE, _TEXT, _INT),
    "scopes": (_NONE, _INT, _TEXT),
    "files": (_NONE, _INT, _TEXT, _TEXT, _INT),
    "sequences": (_NONE, _INT, _TEXT + _NONE, _INT + _NONE, _INT, _INT, _INT, _REAL, _INT),
    "blocks": (_NONE, _INT, _BLOB),
    "conversations": (_NONE, _TEXT, _TEXT, _REAL),
    "messages": (_NONE, _TEXT, _TEXT, _TEXT, _REAL),
}

_SCHEMA = ("table", "index", "trigger", "view")
"""How rows of the schema begin, some of which look like facts."""


@dataclass(frozen=True, slots=True)
class SequenceRow:
    """A row of `sequences`; `created` is None where only indexes told of it."""

    scope: int
    conversation: str | None
    file: int | None
    extent: Extent
    created: float | None


@dataclass(slots=True)
class Wreckage:
    """The rows found, by the number of their table where it has one."""

    facts: list[tuple[str, str, str, float]] = field(default_factory=list)
    pairs: list[tuple[PairTable, str, str, bytes, float]] = field(default_factory=list)
    vocabularies: dict[int, tuple[str, int | None]] = field(default_factory=dict)
    scopes: dict[int, tuple[int, str]] = field(default_factory=dict)
    files: dict[int, tuple[int, str, str, int]] = field(default_factory=dict)
    sequences: dict[int, SequenceRow] = field(default_factory=dict)
    blocks: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    conversations: dict[int, tuple[str, str, float]] = field(default_factory=dict)
    messages: dict[int, tuple[str, str, str, float]] = field(default_factory=dict)


def collect(leaves: Leaves) -> Wreckage:
    """Sort every row that is found into its table."""
    wreckage = Wreckage()
    for number, row in leaves.rows():
        _take(wreckage, number, row)
    return wreckage


def _take(wreckage: Wreckage, number: int, row: Row) -> None:
    table = _table_of(row)
    if table == "facts":
        wreckage.facts.append(row[:4])
    elif table == "pairs":
        wreckage.pairs.append((table_of(row[2]), *row[:4]))
    elif table == "sequences":
        _number, scope, conversation, file, *extent, created, _touched = row
        known = SequenceRow(scope, conversation, file, Extent(*extent), created)
        wreckage.sequences.setdefault(number, known)
    elif table is not None:
        rows: dict[int, Any] = getattr(wreckage, table)
        rows.setdefault(number, row[1 : len(_SHAPES[table])])


def _table_of(row: Row) -> str | None:
    if row[0] in _SCHEMA:
        return None
    for table, shape in _SHAPES.items():
        whole = shape + (_NONE,) * (NUM_COLUMNS - len(shape))
        if all(isinstance(value, kinds) for value, kinds in zip(row, whole, strict=True)):
            return None if table == "scopes" and row[2] not in TIERS else table
    return None
