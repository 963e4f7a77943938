"""Recording token sequences and their index, each in one transaction.

    tokens -> blocks (the ground truth) -> grams (one row a token: key of its context, position)

Everything here writes; it belongs off the hot path. `edgespec.cache.tokens.suffix_lookup` reads.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgespec.cache.database import transaction
from edgespec.cache.tokens.codec import BLOCK, as_array, blocks, unpack
from edgespec.cache.tokens.suffix_keys import keys_before

Tier = Literal["model", "statistics"]
TIERS: tuple[Tier, ...] = ("model", "statistics")

MAX_CONTEXT = 32
"""Tokens kept of what stood before a sequence: the longest match that its first token can have."""


FIND_SCOPE = (
    "SELECT scopes.id FROM scopes JOIN vocabularies ON vocabularies.id = scopes.vocabulary"
    " WHERE fingerprint = ? AND tier = ?"
)

_MOST = 1 << 48
"""More tokens, blocks or sequences than anybody records."""

_AT_ONCE = 64
"""Sequences indexed in one transaction: others can write in between."""

_ADD_SEQUENCE = (
    "INSERT INTO sequences (id, scope, conversation, file, first_block, num_context, num_tokens,"
    " created, touched) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_ADD_GRAM = "INSERT OR IGNORE INTO grams (scope, key, position) VALUES (?, ?, ?)"


@dataclass(frozen=True, slots=True)
class VocabularyKey:
    """Whose token ids: models of one `fingerprint` share what was recorded."""

    fingerprint: str
    num_tokens: int

    def of(self, owner: str) -> VocabularyKey:
        """The same, for what is recorded for an `owner` alone; "" is the user themself."""
        return VocabularyKey(
            f"{self.fingerprint} {owner}" if owner else self.fingerprint, self.num_tokens
        )


@dataclass(frozen=True, slots=True)
class Recording:
    """A sequence to remember: `tokens`, and the tokens of the text that they followed.

    Deleting `conversation` deletes the sequence. `file` is the number of the imported file.
    """

    tokens: Sequence[int]
    context: Sequence[int] = ()
    conversation: str | None = None
    file: int | None = None


class SequenceStore:
    """Writes recorded sequences; every method raises sqlite3.Error and then changed nothing."""

    def __init__(
        self, connection: sqlite3.Connection, clock: Callable[[], float] = time.time
    ) -> None:
        """`connection` stays the caller's; `clock` only dates what is recorded, orders nothing."""
        self._connection = connection
        self._clock = clock

    def scope(self, vocabulary: VocabularyKey, tier: Tier) -> int:
        """Number of a vocabulary's tier, made if it is new."""
        found = find_scope(self._connection, vocabulary, tier)
        if found is not None:
            return found
        execute = self._connection.execute
        with transaction(self._connection):
            execute(
                "INSERT OR IGNORE INTO vocabularies (fingerprint, num_tokens) VALUES (?, ?)",
                (vocabulary.fingerprint, vocabulary.num_tokens),
            )
            execute(
                "INSERT OR IGNORE INTO scopes (vocabulary, tier)"
                " SELECT id, ? FROM vocabularies WHERE fingerprint = ?",
                (tier, vocabulary.fingerprint),
            )
        made = find_scope(self._connection, vocabulary, tier)
        assert made is not None
        return made

    def record(self, scope: int, recording: Recording) -> int | None:
        """Remember a sequence in one transaction; its number, or None for one without tokens."""
        with transaction(self._connection):
            return self.add(scope, recording)

    def add(self, scope: int, recording: Recording) -> int | None:
        """As `record`, inside a transaction of the caller's."""
        tokens = as_array(recording.tokens)
        if not len(tokens):
            return None
        context = as_array(recording.context[-MAX_CONTEXT:])
        whole = np.concatenate([context, tokens])
        first_block, sequence = self._next("blocks"), self._next("sequences")
        whose = (sequence, scope, recording.conversation, recording.file)
        place = (first_block, len(context), len(tokens))
        self._connection.execute(_ADD_SEQUENCE, (*whose, *place, self._clock(), sequence))
        self._connection.executemany(
            "INSERT INTO blocks (block, sequence, tokens) VALUES (?, ?, ?)",
            ((block, sequence, packed) for block, packed in enumerate(blocks(whole), first_block)),
        )
        self._connection.executemany(_ADD_GRAM, _grams(scope, whole, len(context), first_block))
        return sequence

    def index(self, sequence: int) -> None:
        """Index a recorded sequence (anew), inside the caller's transaction."""
        scope, first_block, num_context, num_tokens = self._connection.execute(
            "SELECT scope, first_block, num_context, num_tokens FROM sequences WHERE id = ?",
            (sequence,),
        ).fetchone()
        require_numbers(first_block, num_context, num_tokens)
        whole = self.read(first_block, num_context + num_tokens)
        self._connection.executemany(_ADD_GRAM, _grams(scope, whole, num_context, first_block))

    def rebuild_index(self) -> None:
        """Make the index anew from the recorded tokens, in transactions of its own.

        Interrupted, it is incomplete, which `edgespec.cache.upkeep.check` sees.
        """
        with transaction(self._connection):
            self._connection.execute("DELETE FROM grams")
        sequences = [number for (number,) in self._connection.execute("SELECT id FROM sequences")]
        for start in range(0, len(sequences), _AT_ONCE):
            with transaction(self._connection):
                for sequence in sequences[start : start + _AT_ONCE]:
                    self.index(sequence)

    def touch(self, sequences: Iterable[int]) -> None:
        """Note that drafts were taken from these sequences: they are forgotten later.

        Inside the caller's transaction.
        """
        now = self._next("sequences") - 1
        self._connection.executemany(
            "UPDATE sequences SET touched = ? WHERE id = ?",
            ((now, sequence) for sequence in sequences),
        )

    def remove(self, sequence: int) -> int:
        """Forget one sequence and all that was indexed of it, inside the caller's transaction.

        Returns the number of tokens forgotten.
        """
        execute = self._connection.execute
        row = execute(
            "SELECT scope, file, first_block, num_context, num_tokens FROM sequences WHERE id = ?",
            (sequence,),
        ).fetchone()
        if row is None:
            return 0
        scope, file, first_block, num_context, num_tokens = row
        require_numbers(first_block, num_context, num_tokens)
        whole = self.read(first_block, num_context + num_tokens)
        self._connection.executemany(
            "DELETE FROM grams WHERE scope = ? AND key = ? AND position = ?",
            _grams(scope, whole, num_context, first_block),
        )
        last_block = first_block + (num_context + num_tokens - 1) // BLOCK
        execute("DELETE FROM blocks WHERE block BETWEEN ? AND ?", (first_block, last_block))
        execute("DELETE FROM sequences WHERE id = ?", (sequence,))
        if file is not None:
            self._lost_part_of(file)
        return int(num_tokens)

    def read(self, first_block: int, num_tokens: int) -> NDArray[np.uint32]:
        """The recorded tokens of a sequence, its context first; none if it is gone.

        Raises sqlite3.DatabaseError where some are damaged.
        """
        last_block = first_block + (num_tokens - 1) // BLOCK
        rows = self._connection.execute(
            "SELECT tokens FROM blocks WHERE block BETWEEN ? AND ? ORDER BY block",
            (first_block, last_block),
        )
        packed = [tokens for (tokens,) in rows]
        if not packed:
            return np.zeros(0, np.uint32)
        if not all(isinstance(tokens, bytes) for tokens in packed):
            raise sqlite3.DatabaseError("recorded tokens are damaged")
        whole = np.concatenate([np.asarray(unpack(tokens), dtype=np.uint32) for tokens in packed])
        if len(whole) != num_tokens:
            raise sqlite3.DatabaseError("recorded tokens are lost")
        return whole

    def _lost_part_of(self, file: int) -> None:
        """Let the next import read a file anew; drop one of which nothing is left."""
        execute = self._connection.execute
        execute("UPDATE files SET sha256 = '' WHERE id = ?", (file,))
        execute(
            "DELETE FROM files WHERE id = ? AND NOT EXISTS"
            " (SELECT 1 FROM sequences WHERE file = ?)",
            (file, file),
        )

    def _next(self, table: str) -> int:
        """The number that AUTOINCREMENT gives next."""
        row = self._connection.execute(
            "SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)
        ).fetchone()
        return int(row[0]) + 1 if row else 1


def find_scope(connection: sqlite3.Connection, vocabulary: VocabularyKey, tier: Tier) -> int | None:
    """Number of a vocabulary's tier, or None where nothing was recorded in it yet."""
    row = connection.execute(FIND_SCOPE, (vocabulary.fingerprint, tier)).fetchone()
    return int(row[0]) if row else None


def require_numbers(*values: object) -> None:
    """Raise sqlite3.DatabaseError for what is no small integer: a damaged file holds anything."""
    if not all(isinstance(value, int) and 0 <= value < _MOST for value in values):
        raise sqlite3.DatabaseError("the place of recorded tokens is damaged")


def _grams(
    scope: int, whole: NDArray[np.uint32], num_context: int, first_block: int
) -> Iterator[tuple[int, int, int]]:
    """The index rows of a sequence, in key order, which touches the pages of the index in order."""
    first = max(num_context, 1)  # a token that follows nothing cannot be looked up
    keys = keys_before(whole)[first:]
    order = np.argsort(keys, kind="stable")
    positions = order + (first_block * BLOCK + first)
    return zip([scope] * len(keys), keys[order].tolist(), positions.tolist(), strict=True)
