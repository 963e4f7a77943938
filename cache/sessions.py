"""Recorded answers as they were given: what a drafter is trained on, and what they followed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

from edgespec.cache.tokens import TokenStore, VocabularyKey, find_scope, require_numbers


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """What a target said, in its tokens, and the last tokens of what that followed.

    `conversation` has the messages that it was said in (`Conversations.messages`), if it is known.
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
    store = TokenStore(connection)
    for number, conversation, first_block, num_context, num_tokens in reversed(rows):
        require_numbers(first_block, num_context, num_tokens)
        whole = store.read(first_block, num_context + num_tokens).tolist()
        answer = tuple(whole[num_context:])
        if answer and max(answer) < vocabulary.num_tokens:
            yield RecordedAnswer(number, answer, tuple(whole[:num_context]), conversation)
