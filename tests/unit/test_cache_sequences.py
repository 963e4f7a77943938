"""Recording: blocks and keys round-trip, a sequence is there in full or not at all."""

from __future__ import annotations

import doctest
import sqlite3

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from token_support import OTHER_VOCABULARY, VOCABULARY, in_memory

from edgespec.cache.database import transaction
from edgespec.cache.tokens import suffix_keys
from edgespec.cache.tokens.codec import BLOCK, MAX_TOKEN, as_array, blocks, pack, unpack
from edgespec.cache.tokens.sequences import MAX_CONTEXT, Recording
from edgespec.cache.tokens.suffix_keys import DEPTH, keys_before, num_shared, suffix_key

IDS = st.integers(0, MAX_TOKEN)


@given(st.lists(IDS, max_size=3 * BLOCK))
def test_tokens_round_trip_through_blocks(tokens: list[int]) -> None:
    packed = list(blocks(as_array(tokens)))
    assert [token for block in packed for token in unpack(block)] == tokens
    assert all(len(block) == 4 * BLOCK for block in packed[:-1])
    assert b"".join(packed) == pack(as_array(tokens))
    assert len(pack(as_array(tokens))) == 4 * len(tokens)


@given(st.binary(max_size=40))
def test_any_bytes_unpack_to_tokens(packed: bytes) -> None:
    tokens = unpack(packed)
    assert len(tokens) == len(packed) // 4
    assert all(0 <= token < 2**32 for token in tokens)


@pytest.mark.parametrize("tokens", [[-1], [MAX_TOKEN + 1], [3, 2**40]])
def test_ids_that_are_none_are_refused(tokens: list[int]) -> None:
    with pytest.raises(ValueError, match="token ids"):
        as_array(tokens)


@given(st.lists(IDS, max_size=50))
def test_keys_of_a_whole_text_are_those_of_its_ends(tokens: list[int]) -> None:
    keys = keys_before(as_array(tokens))
    assert keys.dtype == np.int64
    assert keys.tolist() == [suffix_key(tokens[:end]) for end in range(len(tokens))]


@given(st.lists(IDS, max_size=30), st.lists(IDS, max_size=30), st.lists(IDS, max_size=30))
def test_texts_that_end_alike_share_the_fields_of_their_common_end(
    one: list[int], other: list[int], end: list[int]
) -> None:
    boundaries = (0, 1, 2, 3, 4, 6, 8, 12, 16)
    shared = num_shared(suffix_key(one + end), suffix_key(other + end))
    assert shared in boundaries
    assert shared >= max(bound for bound in boundaries if bound <= len(end))


def test_keys_tell_texts_apart() -> None:
    """A thousand ends that differ in one token: the field of that token nearly always shows it."""
    text = list(range(500, 500 + DEPTH))
    for depth, bits in ((1, 16), (2, 10), (3, 8), (4, 6), (8, 6), (16, 6)):
        collisions = 0
        for other in range(1000, 2000):
            changed = list(text)
            changed[-depth] = other
            collisions += num_shared(suffix_key(text), suffix_key(changed)) >= depth
        assert collisions <= 3 * 1000 / 2**bits + 1


def test_only_the_last_tokens_count() -> None:
    assert suffix_key(range(100)) == suffix_key(range(100 - DEPTH, 100))
    assert suffix_key(range(100)) != suffix_key(range(101 - DEPTH, 100))


def test_docstring_examples_hold() -> None:
    assert doctest.testmod(suffix_keys).failed == 0


def test_every_token_after_the_first_is_indexed() -> None:
    recorded = in_memory()
    recorded.add(range(BLOCK + 5))
    assert recorded.count("grams") == BLOCK + 4
    assert recorded.count("blocks") == 2
    recorded.add([1, 2, 3], context=range(200))
    assert recorded.count("grams") == BLOCK + 4 + 3
    row = recorded.connection.execute("SELECT * FROM sequences WHERE id = 2").fetchone()
    assert recorded.store.read(3, MAX_CONTEXT + 3).tolist() == [*range(200 - 32, 200), 1, 2, 3]
    assert row[4:7] == (3, MAX_CONTEXT, 3)


def test_nothing_is_recorded_of_nothing() -> None:
    recorded = in_memory()
    scope = recorded.store.scope(VOCABULARY, "model")
    assert recorded.store.record(scope, Recording([], [1, 2, 3])) is None
    assert recorded.count("sequences") == recorded.count("blocks") == 0


def test_a_scope_is_made_once() -> None:
    recorded = in_memory()
    model = recorded.store.scope(VOCABULARY, "model")
    assert recorded.store.scope(VOCABULARY, "model") == model
    others = {
        recorded.store.scope(VOCABULARY, "statistics"),
        recorded.store.scope(OTHER_VOCABULARY, "model"),
    }
    assert len(others | {model}) == 3
    assert recorded.count("vocabularies") == 2


@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=20), min_size=1, max_size=6))
def test_removing_leaves_exactly_the_others(texts: list[list[int]]) -> None:
    recorded, others = in_memory(), in_memory()
    numbers = [recorded.add(text, context=[9] * (len(text) % 3)) for text in texts]
    for index, text in enumerate(texts):
        if index % 2:
            others.add(text, context=[9] * (len(text) % 3))
    with transaction(recorded.connection):
        removed = sum(recorded.store.remove(number) for number in numbers[::2])
    assert removed == sum(map(len, texts[::2]))
    for table in ("sequences", "blocks", "grams"):
        assert recorded.count(table) == others.count(table)
    keys = "SELECT key FROM grams ORDER BY key"
    assert (
        recorded.connection.execute(keys).fetchall() == others.connection.execute(keys).fetchall()
    )


def test_removing_twice_is_removing_once() -> None:
    recorded = in_memory()
    number = recorded.add([1, 2, 3])
    with transaction(recorded.connection):
        assert recorded.store.remove(number) == 3
        assert recorded.store.remove(number) == 0


def test_neither_numbers_nor_positions_are_used_twice() -> None:
    recorded = in_memory()
    number = recorded.add([1, 2, 3])
    with transaction(recorded.connection):
        recorded.store.remove(number)
    assert recorded.add([1, 2, 3]) > number
    [(position,)] = recorded.connection.execute("SELECT min(position) FROM grams").fetchall()
    assert position > BLOCK


def test_a_recording_that_fails_leaves_nothing() -> None:
    recorded = in_memory()
    scope = recorded.store.scope(VOCABULARY, "model")
    recorded.connection.execute(
        "CREATE TRIGGER full BEFORE INSERT ON grams WHEN new.position > 130"
        " BEGIN SELECT raise(ABORT, 'no more'); END"
    )
    with pytest.raises(sqlite3.IntegrityError, match="no more"):
        recorded.store.record(scope, Recording(range(50)))
    assert not recorded.connection.in_transaction
    assert recorded.count("sequences") == recorded.count("blocks") == recorded.count("grams") == 0


def test_use_is_dated_by_recordings_not_by_the_clock() -> None:
    recorded = in_memory()
    first, second = recorded.add([1, 2]), recorded.add([3, 4])
    with transaction(recorded.connection):
        recorded.store.touch([first])
    touched = dict(recorded.connection.execute("SELECT id, touched FROM sequences"))
    assert touched == {first: second, second: second}
    third = recorded.add([5, 6])
    with transaction(recorded.connection):
        recorded.store.touch([first, 999])
    touched = dict(recorded.connection.execute("SELECT id, touched FROM sequences"))
    assert touched == {first: third, second: second, third: third}
