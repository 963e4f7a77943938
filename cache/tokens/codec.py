"""Recorded tokens on disk: little-endian 32-bit ids, in blocks of BLOCK tokens.

A sequence starts a block of its own; its last block may be short. The token at place i of block b
has position b * BLOCK + i.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

BLOCK_BITS = 7
BLOCK = 1 << BLOCK_BITS
"""Tokens of a full block: 512 bytes, seven to a page."""

MAX_TOKEN = (1 << 31) - 1


def as_array(tokens: Sequence[int]) -> NDArray[np.uint32]:
    """Token ids as an array; raises ValueError for an id below 0 or above MAX_TOKEN."""
    wide = np.asarray(tokens, dtype=np.int64).reshape(-1)
    if wide.size and not (int(wide.min()) >= 0 and int(wide.max()) <= MAX_TOKEN):
        raise ValueError(f"token ids run from 0 to {MAX_TOKEN}")
    return wide.astype(np.uint32)


def pack(tokens: NDArray[np.uint32]) -> bytes:
    """The bytes of some tokens."""
    return tokens.astype("<u4", copy=False).tobytes()


def unpack(packed: bytes) -> memoryview:
    """The tokens of a block, as a sequence of ints without a copy; a broken tail is left out."""
    whole = len(packed) & ~3
    if sys.byteorder == "big":
        packed = np.frombuffer(packed[:whole], "<u4").astype(np.uint32).tobytes()
    return memoryview(packed)[:whole].cast("I")


def blocks(tokens: NDArray[np.uint32]) -> Iterator[bytes]:
    """Cut a sequence into packed blocks."""
    for start in range(0, len(tokens), BLOCK):
        yield pack(tokens[start : start + BLOCK])
