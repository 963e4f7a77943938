"""A recorded sequence put together from those of its blocks that are still there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgespec.cache.codec import BLOCK, MAX_TOKEN, unpack


@dataclass(frozen=True, slots=True)
class Extent:
    """Where a sequence was: the number of its first block, tokens of context, tokens of its own."""

    first_block: int
    num_context: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Fragment:
    """Tokens without a gap, and the recorded context where they begin the sequence."""

    tokens: NDArray[np.uint32]
    context: NDArray[np.uint32]


def fragments(extent: Extent, blocks: Mapping[int, bytes]) -> list[Fragment]:
    """The parts between lost blocks, first to last; one alone if the sequence is whole.

    `blocks` are the packed blocks of the sequence by number. One of another size than it must have,
    or with what is no token id, counts as lost. Parts without a token of the sequence's own are
    left out.
    """
    found = []
    for start, whole in _runs(extent, blocks):
        num_context = max(extent.num_context - start, 0)
        if len(whole) > num_context:
            found.append(Fragment(whole[num_context:], whole[:num_context]))
    return found


def is_whole(extent: Extent, found: list[Fragment]) -> bool:
    """True if nothing of the sequence is missing."""
    return (
        len(found) == 1
        and len(found[0].tokens) == extent.num_tokens
        and len(found[0].context) == extent.num_context
    )


def _runs(extent: Extent, blocks: Mapping[int, bytes]) -> Iterator[tuple[int, NDArray[np.uint32]]]:
    """Maximal runs of consecutive good blocks: the place of the first token, and the tokens."""
    total = extent.num_context + extent.num_tokens
    run: list[NDArray[np.uint32]] = []
    first = end = 0
    for block in sorted(blocks):
        start = (block - extent.first_block) * BLOCK
        tokens = np.asarray(unpack(blocks[block]), dtype=np.uint32)
        is_good = (
            0 <= start < total
            and len(blocks[block]) == 4 * min(BLOCK, total - start)
            and int(tokens.max()) <= MAX_TOKEN
        )
        if not is_good:
            continue
        if run and start != end:
            yield first, np.concatenate(run)
            run = []
        first = start if not run else first
        end = start + len(tokens)
        run.append(tokens)
    if run:
        yield first, np.concatenate(run)
