"""Adding conversations and sequences that were kept elsewhere: an export, or a damaged database.

What is here already is not added again, so that a merge that was interrupted can be done anew.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence

from edgespec.cache.chats.conversations import StoredMessage
from edgespec.cache.tokens.sequences import Recording, SequenceStore, Tier, VocabularyKey


class RecordMerger:
    """Adds to a database; every method raises sqlite3.Error.

    What `conversation` and `sequence` do belongs into a transaction of the caller's.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        """`connection` stays the caller's to close."""
        self.num_messages = self.num_sequences = 0  # added so far
        self._connection = connection
        self._created = 0.0
        self._store = SequenceStore(connection, clock=lambda: self._created)
        self._known = Counter(
            connection.execute("SELECT scope, conversation, created, num_tokens FROM sequences")
        )

    def scope(self, vocabulary: VocabularyKey, tier: Tier) -> int:
        """Number of a vocabulary's tier here, made if it is new, in a transaction of its own."""
        return self._store.scope(vocabulary, tier)

    def conversation(
        self, conversation: str, title: str, created: float, messages: Sequence[StoredMessage]
    ) -> bool:
        """Add a conversation, or to its end what it lacks of `messages`; False if all was here."""
        num_added = self._connection.execute(
            "INSERT OR IGNORE INTO conversations (id, title, created) VALUES (?, ?, ?)",
            (conversation, title, created),
        ).rowcount
        here = self._connection.execute(
            "SELECT role, content, created FROM messages WHERE conversation = ? ORDER BY id",
            (conversation,),
        )
        new = _without(messages, [StoredMessage(*row) for row in here])
        self._connection.executemany(
            "INSERT INTO messages (conversation, role, content, created) VALUES (?, ?, ?, ?)",
            ((conversation, message.role, message.content, message.created) for message in new),
        )
        self.num_messages += len(new)
        return num_added > 0 or len(new) > 0

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
        is_new = self._store.add(scope, recording) is not None
        self.num_sequences += is_new
        return is_new


def _without(these: Sequence[StoredMessage], those: Sequence[StoredMessage]) -> list[StoredMessage]:
    """The messages of `these` that are not among `those`, each counted as often as it is there."""
    counts = Counter(those)
    left = []
    for message in these:
        counts[message] -= 1
        if counts[message] < 0:
            left.append(message)
    return left
