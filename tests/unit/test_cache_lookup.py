"""The index: the longest match as a naive search finds it, and few, pinned queries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from token_support import OTHER_VOCABULARY, VOCABULARY, in_memory, longest_suffix, votes

from edgespec.cache.database import transaction
from edgespec.cache.tokens.codec import BLOCK
from edgespec.cache.tokens.sequences import MAX_CONTEXT, Recording, VocabularyKey
from edgespec.cache.tokens.suffix_lookup import (
    MAX_CACHED_BLOCKS,
    MAX_LENGTH,
    MIN_LENGTH,
    Cursor,
)

TOKENS = st.lists(st.integers(0, 3), min_size=1, max_size=60)
TEXTS = st.lists(st.tuples(st.lists(st.integers(0, 3), max_size=40), TOKENS), max_size=4)


def walk(cursor: Cursor | None, most: int = 1000) -> list[int]:
    tokens: list[int] = []
    while cursor is not None and len(tokens) < most:
        tokens.append(cursor.best().token)
        cursor = cursor.after(tokens[-1])
    return tokens


@given(TEXTS, TOKENS)
def test_the_longest_match_is_that_of_a_naive_search(
    texts: Sequence[tuple[list[int], list[int]]], suffix: list[int]
) -> None:
    recorded = in_memory()
    for context, tokens in texts:
        recorded.add(tokens, context)
    length, followers = longest_suffix(texts, suffix)
    cursor = recorded.reader().lookup(suffix)
    if length < MIN_LENGTH:
        assert cursor is None
        return
    assert cursor is not None and cursor.length == length
    best = cursor.best()
    assert votes(cursor) == Counter(followers)
    assert best.support == max(votes(cursor).values())
    assert (best.total, best.length) == (len(followers), length)


@given(TEXTS, TOKENS, TOKENS)
def test_following_a_cursor_keeps_to_the_longest_match(
    texts: Sequence[tuple[list[int], list[int]]], suffix: list[int], said: list[int]
) -> None:
    """As long as a cursor agrees with what is said, no look-up would find a longer match."""
    recorded = in_memory()
    for context, tokens in texts:
        recorded.add(tokens, context)
    cursor = recorded.reader().lookup(suffix)
    text = list(suffix)
    for token in said:
        cursor = cursor and cursor.after(token)
        text.append(token)
        if cursor is None:
            return
        length, followers = longest_suffix(texts, text)
        assert cursor.length == length
        assert votes(cursor) == Counter(followers)


@given(TEXTS, TOKENS)
def test_with_few_neighbours_every_match_is_still_real(
    texts: Sequence[tuple[list[int], list[int]]], suffix: list[int]
) -> None:
    recorded = in_memory()
    for context, tokens in texts:
        recorded.add(tokens, context)
    cursor = recorded.reader(neighbours=2).lookup(suffix)
    if cursor is None:
        return
    end = suffix[len(suffix) - cursor.length :]
    wholes = [list(context)[-MAX_CONTEXT:] + tokens for context, tokens in texts]
    for token in votes(cursor):
        needle = [*end, token]
        assert any(
            whole[start : start + len(needle)] == needle
            for whole in wholes
            for start in range(len(whole))
        )


def test_what_followed_most_often_comes_first_and_the_latest_of_equals() -> None:
    recorded = in_memory()
    for said, best in ((7, 7), (8, 8), (7, 7), (9, 7), (9, 9)):
        recorded.add([0, 1, 2, 3, said])
        cursor = recorded.reader().lookup([0, 1, 2, 3])
        assert cursor is not None and cursor.best().token == best


def test_of_more_equal_contexts_than_neighbours_the_latest_vote() -> None:
    recorded = in_memory()
    context = list(range(20))
    for token in range(100, 120):
        recorded.add([*context, token])
    cursor = recorded.reader(neighbours=4).lookup(context)
    assert cursor is not None
    assert set(votes(cursor)) == {116, 117, 118, 119}


def test_an_answer_is_found_by_the_end_of_its_prompt() -> None:
    recorded = in_memory()
    recorded.add([501, 502, 503], context=list(range(100)))
    assert walk(recorded.reader().lookup(list(range(60, 100)))) == [501, 502, 503]
    cursor = recorded.reader().lookup(list(range(100)))
    assert cursor is not None and cursor.length == MAX_CONTEXT
    assert recorded.reader().lookup(list(range(97))) is None, "the prompt itself is not learned"


def test_tiers_and_vocabularies_do_not_see_each_other() -> None:
    recorded = in_memory()
    recorded.add([0, 1, 2, 3])
    recorded.add([0, 1, 2, 4], tier="statistics")
    recorded.add([0, 1, 2, 5], vocabulary=OTHER_VOCABULARY)
    assert walk(recorded.reader().lookup([0, 1, 2])) == [3]
    assert walk(recorded.reader(tier="statistics").lookup([0, 1, 2])) == [4]
    assert walk(recorded.reader(vocabulary=OTHER_VOCABULARY).lookup([0, 1, 2])) == [5]
    stranger = VocabularyKey("nobody", 9)
    assert recorded.reader(vocabulary=stranger).lookup([0, 1, 2]) is None


def test_a_reader_made_before_the_first_recording_finds_it() -> None:
    recorded = in_memory()
    reader = recorded.reader()
    assert reader.lookup([0, 1, 2]) is None
    recorded.add([0, 1, 2, 3])
    assert walk(reader.lookup([0, 1, 2])) == [3]


def test_one_sequence_does_not_run_into_the_next() -> None:
    recorded = in_memory()
    recorded.add([*range(BLOCK - 2), 701, 702])
    recorded.add([9, 10, 11])
    assert walk(recorded.reader().lookup([BLOCK - 4, BLOCK - 3, 701])) == [702]
    assert recorded.reader().lookup([BLOCK - 3, 701, 702]) is None


def test_a_match_reaches_back_over_a_block() -> None:
    recorded = in_memory()
    recorded.add(range(BLOCK + 40))
    cursor = recorded.reader().lookup(range(BLOCK + 3))
    assert cursor is not None and cursor.length == MAX_LENGTH


def test_tokens_that_are_none_end_a_continuation() -> None:
    """A damaged file may hold any number; the target must never get it."""
    recorded = in_memory()
    recorded.add([0, 1, 2, 3, 4, VOCABULARY.num_tokens, 5])
    assert walk(recorded.reader().lookup([0, 1, 2])) == [3, 4]
    assert recorded.reader().lookup([3, 4]) is None


def test_the_hot_queries_are_pinned() -> None:
    recorded = in_memory()
    recorded.add(range(3 * BLOCK))
    reader = recorded.reader(neighbours=8)
    assert reader.lookup([5, 6, 7]) is not None  # finds the tier's number, once
    reader = recorded.reader(neighbours=8)
    statements: list[str] = []
    recorded.connection.set_trace_callback(statements.append)
    cursor = reader.lookup([8, 9, 10])
    recorded.connection.set_trace_callback(None)
    scope, near, blocks = statements
    assert scope == (
        "SELECT scopes.id FROM scopes JOIN vocabularies ON vocabularies.id = scopes.vocabulary"
        " WHERE fingerprint = 'tiny' AND tier = 'model'"
    )
    key = near.split("key <= ")[1].split(" ")[0]
    assert near == (
        f"SELECT * FROM (SELECT key, position FROM grams WHERE scope = 1 AND key <= {key}"
        " ORDER BY key DESC, position DESC LIMIT 8)"
        f" UNION ALL SELECT * FROM (SELECT key, position FROM grams WHERE scope = 1 AND key > {key}"
        " ORDER BY key, position LIMIT 4)"
    )
    assert blocks == "SELECT block, sequence, tokens FROM blocks WHERE block IN (1)"
    assert cursor is not None


def test_the_hot_queries_use_the_index() -> None:
    recorded = in_memory()
    recorded.add([0, 1, 2, 3])
    statements: list[str] = []
    recorded.connection.set_trace_callback(statements.append)
    assert recorded.reader(neighbours=8).lookup([0, 1, 2]) is not None
    recorded.connection.set_trace_callback(None)
    for statement in statements[1:]:
        plan = recorded.connection.execute("EXPLAIN QUERY PLAN " + statement).fetchall()
        told = " / ".join(str(row[3]) for row in plan)
        assert "USING PRIMARY KEY" in told or "USING INTEGER PRIMARY KEY" in told
        assert "TEMP B-TREE" not in told


def test_following_a_continuation_asks_once_for_each_block() -> None:
    recorded = in_memory()
    recorded.add(range(3 * BLOCK))
    reader = recorded.reader(neighbours=8)
    cursor = reader.lookup(range(20))
    statements: list[str] = []
    recorded.connection.set_trace_callback(statements.append)
    assert walk(cursor) == list(range(20, 3 * BLOCK))
    assert len(statements) == 3, "the second block, the third, and the one that is not there"


@given(st.integers(1, 3 * BLOCK), st.integers(0, 2 * BLOCK + 5))
def test_what_is_ahead_is_what_the_sequence_says_next(length: int, count: int) -> None:
    recorded = in_memory()
    recorded.add([1, 2, 3, *(10 + number % 700 for number in range(length))])
    recorded.add(range(50, 55))
    cursor = recorded.reader().lookup([1, 2, 3])
    assert cursor is not None
    assert cursor.ahead(count) == [10 + number % 700 for number in range(length)][:count]


def test_what_is_ahead_is_that_of_the_most_supported_and_holds_no_impossible_token() -> None:
    recorded = in_memory()
    for tail in ([7, 8], [9, 8, 8], [9, 6, VOCABULARY.num_tokens, 6]):
        recorded.add([1, 2, 3, *tail])
    cursor = recorded.reader().lookup([1, 2, 3])
    assert cursor is not None
    assert cursor.best().token == 9
    assert cursor.ahead(10) in ([9, 8, 8], [9, 6])


def test_memory_of_blocks_is_bounded() -> None:
    recorded = in_memory()
    scope = recorded.store.scope(VOCABULARY, "model")
    pairs = [(first, second) for first in range(30) for second in range(40)]
    with transaction(recorded.connection):
        for first, second in pairs:
            recorded.store.add(scope, Recording([9, 100 + first, 200 + second, 7]))
    reader = recorded.reader(neighbours=8)
    for first, second in pairs:
        assert walk(reader.lookup([9, 100 + first, 200 + second])) == [7]
    assert 0 < len(reader._blocks) <= MAX_CACHED_BLOCKS < len(pairs)


def test_a_confirmed_cursor_names_its_sequences() -> None:
    recorded = in_memory()
    first, second = recorded.add([0, 1, 2, 3]), recorded.add([0, 1, 2, 4])
    recorded.add([8, 9, 7])
    reader = recorded.reader()
    cursor = reader.lookup([0, 1, 2])
    assert cursor is not None and not reader.used
    cursor.confirm()
    assert reader.used == {first, second}
