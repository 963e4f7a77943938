"""What targets said, the latest first, within a limit; contexts and other tiers left out."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from token_support import OTHER_VOCABULARY, VOCABULARY, Recorded, in_memory

from edgespec.cache.said import SaidTokens, latest_said, num_said_since
from edgespec.cache.tokens import VocabularyKey, transaction

TEXTS = st.lists(
    st.tuples(
        st.lists(st.integers(0, 999), max_size=40),
        st.lists(st.integers(0, 999), min_size=1, max_size=300),
    ),
    max_size=4,
)


def found(recorded: Recorded, most_tokens: int = 1 << 20) -> list[SaidTokens]:
    return list(latest_said(recorded.connection, VOCABULARY, most_tokens))


def tokens_of(answers: Sequence[SaidTokens]) -> list[list[int]]:
    return [answer.tokens.tolist() for answer in answers]


@settings(max_examples=25)  # each makes a database
@given(TEXTS, st.integers(0, 600))
def test_the_latest_come_first_until_there_are_enough(
    texts: list[tuple[list[int], list[int]]], most_tokens: int
) -> None:
    recorded = in_memory()
    numbers = [recorded.add(tokens, context) for context, tokens in texts]
    expected: list[list[int]] = []
    for _, tokens in reversed(texts):
        if sum(map(len, expected)) < most_tokens:
            expected.append(tokens)
    answers = found(recorded, most_tokens)
    assert tokens_of(answers) == expected
    assert [answer.sequence for answer in answers] == numbers[::-1][: len(expected)]


@settings(max_examples=25)
@given(TEXTS)
def test_what_is_new_is_counted(texts: list[tuple[list[int], list[int]]]) -> None:
    recorded = in_memory()
    numbers = [0, *(recorded.add(tokens, context) for context, tokens in texts)]
    for index, number in enumerate(numbers):
        expected = sum(len(tokens) for _, tokens in texts[index:])
        assert num_said_since(recorded.connection, VOCABULARY, number) == expected


def test_imported_text_and_other_vocabularies_do_not_count() -> None:
    recorded = in_memory()
    assert found(recorded) == []
    assert num_said_since(recorded.connection, VOCABULARY, 0) == 0
    recorded.add([1, 2, 3], tier="statistics")
    recorded.add([4, 5], vocabulary=OTHER_VOCABULARY)
    assert found(recorded) == []
    assert num_said_since(recorded.connection, VOCABULARY, 0) == 0
    assert num_said_since(recorded.connection, OTHER_VOCABULARY, 0) == 2


def test_ids_beyond_the_vocabulary_are_left_out() -> None:
    recorded = in_memory()
    recorded.add([1, 2000, 999, 1])
    recorded.add([3000])
    assert tokens_of(found(recorded)) == [[1, 999, 1]]
    nobody = VocabularyKey("nobody", 7)
    assert list(latest_said(recorded.connection, nobody, 100)) == []


def test_what_is_forgotten_while_it_is_read_is_left_out() -> None:
    recorded = in_memory()
    first, _, _ = (recorded.add([token] * 5) for token in (1, 2, 3))
    answers = latest_said(recorded.connection, VOCABULARY, 100)
    assert next(answers).tokens.tolist() == [3] * 5
    with transaction(recorded.connection):  # nothing is locked meanwhile
        recorded.store.remove(first)
    assert tokens_of(list(answers)) == [[2] * 5]
