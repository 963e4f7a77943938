"""Adding chats and sequences that were kept elsewhere: an export, a file, or a damaged database.

What is here already is not added again, so that a merge that was interrupted can be done anew.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict, deque
from collections.abc import Mapping
from dataclasses import replace

from edgespec.cache.chats.rows import add_chat, add_message, linked, storable
from edgespec.cache.tokens.sequences import Recording, SequenceStore, Tier, VocabularyKey
from edgespec.chats import Chat, ChatMessage

_NONE: Mapping[int, int] = {}

_Key = tuple[int | None, str, str, float]


class RecordMerger:
    """Adds to a database; every method raises sqlite3.Error.

    What `chat` and `sequence` do belongs into a transaction of the caller's.
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

    def chat(
        self, chat: Chat, here: Mapping[int, int] = _NONE, deleted: float | None = None
    ) -> bool:
        """Add a chat, or what one that is known lacks of its messages; False if all was here.

        Equal messages below equal ones are the same one, as often as it is there. `here` has the
        numbers here of those that are known to be here. The tip moves to the chat's own if
        something was added. Title and settings of a known chat stay; unless it is `deleted`
        elsewhere, too, it is restored.
        """
        name = storable(chat.head.id)
        head = replace(chat.head, id=name)
        is_new = add_chat(self._connection, head, chat.settings, deleted)
        known = self._messages_here(name)
        placed: dict[int, int] = {}
        num_added = 0
        for message in linked(chat.messages):
            parent = None if message.parent is None else placed[message.parent]
            found = here.get(message.id)
            same = known[_key(message, parent)]
            if found is not None and found in same:
                same.remove(found)
            elif found is None and same:
                found = same.popleft()
            if found is None:
                found = add_message(self._connection, name, replace(message, parent=parent))
                num_added += 1
            placed[message.id] = found
        self.num_messages += num_added
        if is_new or num_added:
            self._change(chat, name, placed)
        if deleted is None:
            self._connection.execute(
                "UPDATE conversations SET deleted = NULL WHERE id = ?", (name,)
            )
        return is_new or num_added > 0

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

    def _messages_here(self, chat: str) -> defaultdict[_Key, deque[int]]:
        rows = self._connection.execute(
            "SELECT parent, role, content, created, id FROM messages WHERE conversation = ?"
            " ORDER BY id",
            (chat,),
        )
        known: defaultdict[_Key, deque[int]] = defaultdict(deque)
        for *key, number in rows:
            known[tuple(key)].append(number)
        return known

    def _change(self, chat: Chat, name: str, placed: Mapping[int, int]) -> None:
        """Show what came last, and list the chat by the time in which it was spoken in."""
        tip = placed.get(chat.tip) if chat.tip is not None else None
        updated = chat.head.updated
        self._connection.execute(
            "UPDATE conversations SET tip = coalesce(?, tip), updated = max(updated, ?),"
            " spoken = max(spoken, ?) WHERE id = ?",
            (tip, updated, updated, name),
        )


def _key(message: ChatMessage, parent: int | None) -> _Key:
    return parent, storable(message.role), storable(message.content), message.created
