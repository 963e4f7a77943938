"""What targets said, the latest first, within a limit; contexts and other tiers left out."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from token_support import OTHER_VOCABULARY, VOCABULARY, Recorded, in_memory

from edgespec.cache.database import open_in_memory, transaction
from edgespec.cache.tokens.answers import (
    AnswerTokens,
    latest_answers,
    num_tokens_since,
    recorded_answers,
)
from edgespec.cache.tokens.sequences import MAX_CONTEXT, Recording, SequenceStore, VocabularyKey

TEXTS = st.lists(
    st.tuples(
        st.lists(st.integers(0, 999), max_size=40),
        st.lists(st.integers(0, 999), min_size=1, max_size=300),
    ),
    max_size=4,
)


def found(recorded: Recorded, most_tokens: int = 1 << 20) -> list[AnswerTokens]:
    return list(latest_answers(recorded.connection, VOCABULARY, most_tokens))


def tokens_of(answers: Sequence[AnswerTokens]) -> list[list[int]]:
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
        assert num_tokens_since(recorded.connection, VOCABULARY, number) == expected


def test_imported_text_and_other_vocabularies_do_not_count() -> None:
    recorded = in_memory()
    assert found(recorded) == []
    assert num_tokens_since(recorded.connection, VOCABULARY, 0) == 0
    recorded.add([1, 2, 3], tier="statistics")
    recorded.add([4, 5], vocabulary=OTHER_VOCABULARY)
    assert found(recorded) == []
    assert num_tokens_since(recorded.connection, VOCABULARY, 0) == 0
    assert num_tokens_since(recorded.connection, OTHER_VOCABULARY, 0) == 2


def test_ids_beyond_the_vocabulary_are_left_out() -> None:
    recorded = in_memory()
    recorded.add([1, 2000, 999, 1])
    recorded.add([3000])
    assert tokens_of(found(recorded)) == [[1, 999, 1]]
    nobody = VocabularyKey("nobody", 7)
    assert list(latest_answers(recorded.connection, nobody, 100)) == []


def test_what_is_forgotten_while_it_is_read_is_left_out() -> None:
    recorded = in_memory()
    first, _, _ = (recorded.add([token] * 5) for token in (1, 2, 3))
    answers = latest_answers(recorded.connection, VOCABULARY, 100)
    assert next(answers).tokens.tolist() == [3] * 5
    with transaction(recorded.connection):  # nothing is locked meanwhile
        recorded.store.remove(first)
    assert tokens_of(list(answers)) == [[2] * 5]


# -- with what they followed, oldest first ----------------------------------------------------

KEY, OTHER = VocabularyKey("one", 1000), VocabularyKey("other", 1000)


def test_answers_come_with_what_they_followed() -> None:
    with open_in_memory() as database:
        store = SequenceStore(database.connection)
        model, text = store.scope(KEY, "model"), store.scope(KEY, "statistics")
        long = [number % 1000 for number in range(300)]
        store.record(model, Recording([1, 2, 3], [9, 8], "talk"))
        store.record(text, Recording([4, 4, 4]))
        store.record(store.scope(OTHER, "model"), Recording([5, 5]))
        store.record(model, Recording(long, long))
        store.record(model, Recording([6]))
        found = list(recorded_answers(database.connection, KEY, 10))
        assert [answer.tokens for answer in found] == [(1, 2, 3), tuple(long), (6,)]
        assert [answer.conversation for answer in found] == ["talk", None, None]
        assert found[0].context == (9, 8)
        assert found[1].context == tuple(long[-MAX_CONTEXT:])
        assert [answer.number for answer in found] == sorted(answer.number for answer in found)


def test_only_the_latest_are_read() -> None:
    with open_in_memory() as database:
        store = SequenceStore(database.connection)
        scope = store.scope(KEY, "model")
        for token in range(9):
            store.record(scope, Recording([token]))
        found = list(recorded_answers(database.connection, KEY, 3))
        assert [answer.tokens for answer in found] == [(6,), (7,), (8,)]


def test_tokens_outside_the_vocabulary_and_unknown_vocabularies_give_nothing() -> None:
    with open_in_memory() as database:
        store = SequenceStore(database.connection)
        store.record(store.scope(KEY, "model"), Recording([1, 1000]))
        assert list(recorded_answers(database.connection, KEY, 10)) == []
        assert list(recorded_answers(database.connection, OTHER, 10)) == []
