"""How often a vocabulary's tokens were said to this user, over everything that is recorded."""

from __future__ import annotations

import sqlite3

import numpy as np
from numpy.typing import NDArray

from edgespec.cache.tokens import TokenStore, VocabularyKey, find_scope


def said_counts(connection: sqlite3.Connection, vocabulary: VocabularyKey) -> NDArray[np.int64]:
    """Counts by token id: (num_tokens,), zeros where nothing is recorded; raises sqlite3.Error.

    Only what targets said (the tier "model"), not what it followed.
    """
    counts = np.zeros(vocabulary.num_tokens, dtype=np.int64)
    scope = find_scope(connection, vocabulary, "model")
    if scope is None:
        return counts
    store = TokenStore(connection)
    rows = connection.execute(
        "SELECT first_block, num_context, num_tokens FROM sequences WHERE scope = ?", (scope,)
    ).fetchall()
    for first_block, num_context, num_tokens in rows:
        said = store.read(first_block, num_context + num_tokens)[num_context:]
        known = said[said < vocabulary.num_tokens].astype(np.int64)
        counts += np.bincount(known, minlength=vocabulary.num_tokens)
    return counts
