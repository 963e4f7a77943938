"""What targets of one vocabulary said to this user, as it is recorded, the latest first.

Only what targets said (the tier "model"), not what it followed. Everything raises sqlite3.Error.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgespec.cache.tokens.sequences import (
    SequenceStore,
    VocabularyKey,
    find_scope,
    require_numbers,
)

FOLLOWED = "followed"
"""The kind of the facts that tell up to which answer somebody has looked at this."""

_LATEST = (
    "SELECT id, first_block, num_context, num_tokens FROM sequences"
    " WHERE scope = ? ORDER BY id DESC"
)
_COUNT = "SELECT coalesce(sum(num_tokens), 0) FROM sequences WHERE scope = ? AND id > ?"


@dataclass(frozen=True, slots=True, eq=False)
class AnswerTokens:
    """One recorded answer: its number, which grows with time, and its tokens."""

    sequence: int
    tokens: NDArray[np.uint32]


def latest_answers(
    connection: sqlite3.Connection, vocabulary: VocabularyKey, most_tokens: int
) -> Iterator[AnswerTokens]:
    """Answers, the latest first, until there are `most_tokens` tokens of them.

    Each is read when it is asked for: one that was forgotten meanwhile is left out.
    """
    scope = find_scope(connection, vocabulary, "model")
    if scope is None:
        return
    store = SequenceStore(connection)
    for sequence, first_block, num_context, num_tokens in _rows(connection, scope, most_tokens):
        tokens = store.read(first_block, num_context + num_tokens)[num_context:]
        known = tokens[tokens < vocabulary.num_tokens]
        if len(known):
            yield AnswerTokens(sequence, known)


def _rows(
    connection: sqlite3.Connection, scope: int, most_tokens: int
) -> list[tuple[int, int, int, int]]:
    """Where the latest answers are: read at once, so that nothing stays locked meanwhile."""
    rows = []
    with contextlib.closing(connection.execute(_LATEST, (scope,))) as cursor:
        for row in cursor:
            if most_tokens <= 0:
                break
            require_numbers(*row)
            rows.append(row)
            most_tokens -= row[3]
    return rows


def num_tokens_since(
    connection: sqlite3.Connection, vocabulary: VocabularyKey, sequence: int
) -> int:
    """Tokens of the answers that were recorded after number `sequence`: a fast query."""
    scope = find_scope(connection, vocabulary, "model")
    if scope is None:
        return 0
    return int(connection.execute(_COUNT, (scope, sequence)).fetchone()[0])


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """What a target said, in its tokens, and the last tokens of what that followed.

    `conversation` has the messages that it was said in (`Conversations.turns`), if it is known.
    """

    number: int
    tokens: tuple[int, ...]
    context: tuple[int, ...]
    conversation: str | None


def recorded_answers(
    connection: sqlite3.Connection, vocabulary: VocabularyKey, most: int
) -> Iterator[RecordedAnswer]:
    """The latest `most` answers of targets of a vocabulary, oldest first; raises sqlite3.Error."""
    scope = find_scope(connection, vocabulary, "model")
    if scope is None:
        return
    rows = connection.execute(
        "SELECT id, conversation, first_block, num_context, num_tokens FROM sequences"
        " WHERE scope = ? ORDER BY id DESC LIMIT ?",
        (scope, most),
    ).fetchall()
    store = SequenceStore(connection)
    for number, conversation, first_block, num_context, num_tokens in reversed(rows):
        require_numbers(first_block, num_context, num_tokens)
        whole = store.read(first_block, num_context + num_tokens).tolist()
        answer = tuple(whole[num_context:])
        if answer and max(answer) < vocabulary.num_tokens:
            yield RecordedAnswer(number, answer, tuple(whole[:num_context]), conversation)
