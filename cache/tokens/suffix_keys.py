"""Keys of the index: sixteen tokens of context in 64 bits, nearest token first.

Theory of operation. The index holds one row for each recorded token: a key made of the tokens
before it, and its position. A key is a row of hash fields; the highest bits come from the token
just before, the next from the one before that, and so on with fewer bits, because a field only has
to tell apart what agreed in all fields above it. Contexts that end alike therefore stand next to
each other in key order, and the longest recorded suffix of a text is a neighbour of the text's own
key: one seek in a B-tree, whatever the length of the match.

    field    1   2   3   4   5     6     7       8
    tokens   1   2   3   4   5-6   7-8   9-12    13-16      (counted backwards)
    bits    16  10   8   6   6     6     6       6

Equal tokens give equal fields; unequal ones may collide. Whoever reads the index compares the
recorded tokens themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_FIELDS = ((1, 16), (1, 10), (1, 8), (1, 6), (2, 6), (2, 6), (4, 6), (4, 6))
"""Tokens and bits of each field."""

DEPTH = sum(tokens for tokens, _bits in _FIELDS)
"""Tokens of context in a key."""

_PARTS = tuple(
    (sum(n for n, _ in _FIELDS[:i]), sum(n for n, _ in _FIELDS[: i + 1]), bits)
    for i, (_n, bits) in enumerate(_FIELDS)
)
"""First and end depth of each field, and its bits."""

_MASK = (1 << 64) - 1
_SIGN = 1 << 63

# Odd 64-bit multipliers, one for each depth: the bits of the golden ratio, stirred by its powers.
_MULTIPLIERS = tuple(
    (pow(0x9E3779B97F4A7C15, 2 * depth + 1, 1 << 64)) | 1 for depth in range(DEPTH)
)


def suffix_key(tokens: Sequence[int]) -> int:
    """Key of a text that ends with `tokens`; only the last DEPTH count.

    Signed 64 bits, as SQLite keeps integers. A text of fewer tokens is filled up with a mark that
    no token has.
    """
    backwards = tokens[: -DEPTH - 1 : -1]
    terms = [(token + 1) * factor for token, factor in zip(backwards, _MULTIPLIERS, strict=False)]
    key = 0
    for first, end, bits in _PARTS:
        key = key << bits | (sum(terms[first:end]) & _MASK) >> (64 - bits)
    return key - _SIGN


def keys_before(tokens: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Key of the context before each token: row i is `suffix_key(tokens[:i])`."""
    count = len(tokens)
    padded = np.zeros(DEPTH + count, dtype=np.uint64)
    padded[DEPTH:] = tokens
    padded[DEPTH:] += np.uint64(1)
    key = np.zeros(count, dtype=np.uint64)
    for first, end, bits in _PARTS:
        total = np.zeros(count, dtype=np.uint64)
        for place in range(first, end):
            start = DEPTH - 1 - place  # where the token stands that is `place` + 1 before token 0
            total += padded[start : start + count] * np.uint64(_MULTIPLIERS[place])
        key = key << np.uint64(bits) | total >> np.uint64(64 - bits)
    return (key ^ np.uint64(_SIGN)).view(np.int64)


def _shared_by_bits() -> tuple[int, ...]:
    """For each bit length of the difference of two keys: tokens in the fields that agree."""
    shared = []
    for length in range(65):
        low, agreeing = 64, 0
        for num_tokens, bits in _FIELDS:
            low -= bits
            if length > low:
                break
            agreeing += num_tokens
        shared.append(agreeing)
    return tuple(shared)


_SHARED = _shared_by_bits()


def num_shared(key: int, other: int) -> int:
    """Tokens, counted backwards, in the leading fields that two keys have in common.

    >>> num_shared(suffix_key([1, 2, 3]), suffix_key([9, 2, 3]))
    2
    """
    return _SHARED[((key ^ other) & _MASK).bit_length()]
