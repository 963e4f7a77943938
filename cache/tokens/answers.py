"""What targets of one vocabulary said to this user, as it is recorded, the latest first.

Only what targets said: the tier "model", without chats that were deleted. Everything raises
sqlite3.Error.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

from edgespec.cache.tokens.sequences import (
    SequenceStore,
    VocabularyKey,
    find_scope,
    require_numbers,
)

FOLLOWED = "followed"
"""The kind of the facts that tell up to which answer somebody has looked at this."""

LEARNED = "learned"
"""The kind of those that tell up to which answer a drafter has learned by itself."""

_LATEST = (
    "SELECT id, conversation, first_block, num_context, num_tokens FROM (SELECT *,"
    " sum(num_tokens) OVER (ORDER BY id DESC) - num_tokens AS num_later FROM sequences"
    " WHERE scope = ? AND (conversation IS NULL OR conversation NOT IN"
    " (SELECT id FROM conversations WHERE deleted IS NOT NULL)))"
    " WHERE num_later < ? ORDER BY id DESC"
)
_COUNT = "SELECT coalesce(sum(num_tokens), 0) FROM sequences WHERE scope = ? AND id > ?"
_NEWEST = "SELECT coalesce(max(id), 0) FROM sequences WHERE scope = ?"


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """What a target said, in its tokens, and the last tokens of what that followed.

    `number` grows with time. `conversation` has the messages that it was said in
    (`Conversations.turns`), if it is known.
    """

    number: int
    tokens: tuple[int, ...]
    context: tuple[int, ...]
    conversation: str | None


def latest_answers(
    connection: sqlite3.Connection, vocabulary: VocabularyKey, most_tokens: float = math.inf
) -> Iterator[RecordedAnswer]:
    """Answers, the latest first, until there are `most_tokens` tokens of them.

    Each is read when it is asked for: one that was forgotten meanwhile is left out, and so is one
    with ids that the vocabulary does not have.
    """
    scope, store = find_scope(connection, vocabulary, "model"), SequenceStore(connection)
    # Found at once, so that nothing stays locked meanwhile.
    found = connection.execute(_LATEST, (scope, most_tokens)).fetchall()
    for number, conversation, *place in found:
        require_numbers(number, *place)
        first_block, num_context, num_tokens = place
        whole = store.read(first_block, num_context + num_tokens).tolist()
        tokens = tuple(whole[num_context:])
        if tokens and max(tokens) < vocabulary.num_tokens:
            yield RecordedAnswer(number, tokens, tuple(whole[:num_context]), conversation)


def newest_answer(connection: sqlite3.Connection, vocabulary: VocabularyKey) -> int:
    """The number of the answer that was recorded last, 0 if there is none: a fast query."""
    scope = find_scope(connection, vocabulary, "model")
    return int(connection.execute(_NEWEST, (scope,)).fetchone()[0])


def num_tokens_since(connection: sqlite3.Connection, vocabulary: VocabularyKey, number: int) -> int:
    """Tokens of the answers that were recorded after that of this number: a fast query."""
    scope = find_scope(connection, vocabulary, "model")
    return int(connection.execute(_COUNT, (scope, number)).fetchone()[0])
