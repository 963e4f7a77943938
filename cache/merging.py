"""Adding conversations and sequences that were kept elsewhere: an export, or a damaged database.

What is here already is not added again, so that a merge that was interrupted can be done anew.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence

from edgespec.cache.conversations import StoredMessage
from edgespec.cache.tokens import Recording, Tier, TokenStore, VocabularyKey


class Merger:
    """Adds to a database; every method raises sqlite3.Error.

    What `conversation` and `sequence` do belongs into a transaction of the caller's.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        """`connection` stays the caller's to close."""
        self._connection = connection
        self._created = 0.0
        self._store = TokenStore(connection, clock=lambda: self._created)
        self._known = Counter(
            connection.execute("SELECT scope, conversation, created, num_tokens FROM sequences")
        )

    def scope(self, vocabulary: VocabularyKey, tier: Tier) -> int:
        """Number of a vocabulary's tier here, made if it is new, in a transaction of its own."""
        return self._store.scope(vocabulary, tier)

    def conversation(
        self, conversation: str, title: str, created: float, messages: Sequence[StoredMessage]
    ) -> bool:
        """Add a conversation, or to it what was said there; False if all of it was here.

        Messages stay in the order given, and those known only here come last.
        """
        execute = self._connection.execute
        num_added = execute(
            "INSERT OR IGNORE INTO conversations (id, title, created) VALUES (?, ?, ?)",
            (conversation, title, created),
        ).rowcount
        here = [
            StoredMessage(*row)
            for row in execute(
                "SELECT role, content, created FROM messages WHERE conversation = ? ORDER BY id",
                (conversation,),
            )
        ]
        merged = [*messages, *_without(here, messages)]
        if len(merged) > len(here):
            execute("DELETE FROM messages WHERE conversation = ?", (conversation,))
            self._connection.executemany(
                "INSERT INTO messages (conversation, role, content, created) VALUES (?, ?, ?, ?)",
                ((conversation, said.role, said.content, said.created) for said in merged),
            )
        return num_added > 0 or len(merged) > len(here)

    def sequence(self, scope: int, recording: Recording, created: float) -> bool:
        """Add a sequence; False if it was here before this merger, or has no tokens.

        Of several alike, as many are left out as were here. Raises ValueError for what is no
        token id.
        """
        known = (scope, recording.conversation, created, len(recording.tokens))
        if self._known[known] > 0:
            self._known[known] -= 1
            return False
        self._created = created
        return self._store.add(scope, recording) is not None


def _without(these: Sequence[StoredMessage], those: Sequence[StoredMessage]) -> list[StoredMessage]:
    """The messages of `these` that are not among `those`, each counted as often as it is there."""
    counts = Counter(those)
    left = []
    for said in these:
        counts[said] -= 1
        if counts[said] < 0:
            left.append(said)
    return left
