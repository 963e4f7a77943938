"""What EdgeSpec remembers of one vocabulary: two tiers to look into, and a recorder.

model        what targets of this vocabulary said to this user
statistics   imported text
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from edgespec.cache.chats.journal import Entry
from edgespec.cache.database import DAMAGE, Database, connect
from edgespec.cache.tokens.recorder import Recorder
from edgespec.cache.tokens.sequences import MAX_CONTEXT, Recording, VocabularyKey
from edgespec.cache.tokens.suffix_lookup import TokenReader

_READ_TIMEOUT_S = 0.005
"""Readers need no lock that a writer holds; what little else there is must not hold up a draft."""

_CACHE_BYTES = 16 << 20


class TokenMemory:
    """Look-ups on a connection of their own; recordings in a thread. Close it.

    Look-ups are for one thread at a time, any one.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        recorder: Recorder | None,
        vocabulary: VocabularyKey,
    ) -> None:
        """Use `open_token_memory`; without a recorder nothing new is learned."""
        self._connection = connection
        self._recorder = recorder
        self._vocabulary = vocabulary
        self._of_owners: dict[str, TokenReader] = {}
        self.model = TokenReader(connection, vocabulary, "model")
        self.statistics = TokenReader(connection, vocabulary, "statistics")

    @property
    def notice(self) -> str:
        """Empty, or one line on what does not work."""
        written = self._recorder.notice if self._recorder else ""
        return self.model.problem or self.statistics.problem or written

    def model_of(self, owner: str) -> TokenReader:
        """What targets said to an `owner`, and to nobody else; "" is the user themself."""
        if not owner:
            return self.model
        if owner not in self._of_owners:
            vocabulary = self._vocabulary.of(owner)
            self._of_owners[owner] = TokenReader(self._connection, vocabulary, "model")
        return self._of_owners[owner]

    def record(
        self,
        tokens: Sequence[int],
        context: Sequence[int],
        entry: Entry | None = None,
        conversation: str | None = None,
        owner: str = "",
    ) -> None:
        """Remember, soon, that the target said `tokens` after a text that ends with `context`.

        `entry` is the conversation so far, `conversation` one whose messages are kept elsewhere;
        deleting either deletes what is recorded here. It is found for `owner` alone.
        """
        if self._recorder is None:
            return
        conversation = entry.conversation if entry else conversation
        recording = Recording(tuple(tokens), tuple(context[-MAX_CONTEXT:]), conversation)
        readers = (self.model_of(owner), self.statistics)
        used = frozenset[int]().union(*(reader.used for reader in readers))
        self._recorder.record(recording, entry, used, owner)
        for reader in readers:
            reader.used.clear()

    def note(self, entry: Entry) -> None:
        """Keep, soon, what was asked, whatever comes of it."""
        if self._recorder is not None:
            self._recorder.note(entry)

    def flush(self) -> bool:
        """Wait until what was recorded is on disk; False if that takes too long."""
        return self._recorder.flush() if self._recorder else True

    def close(self) -> None:
        """Write what is waiting, then close; may be called twice."""
        if self._recorder is not None:
            self._recorder.close()
        self._connection.close()

    def __enter__(self) -> TokenMemory:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def open_token_memory(
    database: Database, vocabulary: VocabularyKey, *, learn: bool = True
) -> TokenMemory | None:
    """What is remembered of a vocabulary; None if the database is in memory or cannot be opened."""
    if database.path is None:
        return None
    try:
        connection = connect(database.path, _READ_TIMEOUT_S, _CACHE_BYTES)
    except DAMAGE:
        return None
    recorder = Recorder(database.path, vocabulary) if learn else None
    return TokenMemory(connection, recorder, vocabulary)
