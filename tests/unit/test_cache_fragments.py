"""Putting a sequence together from some of its blocks, beside doing so token by token."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgespec.cache.codec import BLOCK, MAX_TOKEN, blocks
from edgespec.cache.fragments import Extent, fragments, is_whole


def packed(first_block: int, tokens: list[int]) -> dict[int, bytes]:
    whole = np.asarray(tokens, dtype=np.uint32)
    return dict(enumerate(blocks(whole), start=first_block))


def by_token(
    extent: Extent, tokens: list[int], lost: set[int]
) -> list[tuple[list[int], list[int]]]:
    """Context and own tokens of each part without a gap."""
    parts: list[tuple[list[int], list[int]]] = []
    is_open = False
    for place, token in enumerate(tokens):
        if extent.first_block + place // BLOCK in lost:
            is_open = False
            continue
        if not is_open:
            parts.append(([], []))
            is_open = True
        parts[-1][place >= extent.num_context].append(token)
    return [part for part in parts if part[1]]


@given(
    st.integers(0, 1 << 40),
    st.integers(0, 32),
    st.integers(1, 5 * BLOCK),
    st.sets(st.integers(0, 5), max_size=6),
)
def test_parts_are_those_between_lost_blocks(
    first_block: int, num_context: int, num_tokens: int, gone: set[int]
) -> None:
    extent = Extent(first_block, num_context, num_tokens)
    tokens = [(7 * place) % 1000 for place in range(num_context + num_tokens)]
    there = packed(first_block, tokens)
    lost = {first_block + number for number in gone} & there.keys()
    found = fragments(
        extent, {number: data for number, data in there.items() if number not in lost}
    )
    parts = [(part.context.tolist(), part.tokens.tolist()) for part in found]
    assert parts == by_token(extent, tokens, lost)
    assert is_whole(extent, found) == (not lost)


def test_a_block_that_cannot_be_of_the_sequence_counts_as_lost() -> None:
    extent = Extent(10, 2, 3 * BLOCK)
    tokens = list(range(3 * BLOCK + 2))
    good = packed(10, tokens)
    too_large = np.full(BLOCK, MAX_TOKEN + 1, dtype="<u4").tobytes()
    for bad in (b"", good[11][:-1], good[11] + b"\0", too_large):
        found = fragments(extent, {**good, 11: bad})
        assert [len(part.tokens) for part in found] == [BLOCK - 2, BLOCK + 2]
        assert [len(part.context) for part in found] == [2, 0]
        assert not is_whole(extent, found)
    assert is_whole(extent, fragments(extent, {**good, 9: good[10], 14: good[10]}))


def test_damaged_numbers_give_no_part() -> None:
    blocks_ = packed(10, list(range(BLOCK)))
    for extent in (Extent(-5, 0, 9), Extent(10, 0, 0), Extent(10, 0, -4), Extent(1 << 62, 32, 1)):
        assert fragments(extent, blocks_) == []
    assert fragments(Extent(10, 1 << 62, 1), blocks_) == []
