"""What targets said, the latest first, within a limit; other tiers left out."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from token_support import OTHER_VOCABULARY, VOCABULARY, Recorded, in_memory

from edgespec.cache.chats.store import ChatStore
from edgespec.cache.database import transaction
from edgespec.cache.tokens.answers import (
    RecordedAnswer,
    latest_answers,
    newest_answer,
    num_tokens_since,
)
from edgespec.cache.tokens.sequences import MAX_CONTEXT, VocabularyKey

TEXTS = st.lists(
    st.tuples(
        st.lists(st.integers(0, 999), max_size=40),
        st.lists(st.integers(0, 999), min_size=1, max_size=300),
    ),
    max_size=4,
)


def found(recorded: Recorded, most_tokens: int = 1 << 20) -> list[RecordedAnswer]:
    return list(latest_answers(recorded.connection, VOCABULARY, most_tokens))


def tokens_of(answers: Sequence[RecordedAnswer]) -> list[list[int]]:
    return [list(answer.tokens) for answer in answers]


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
    assert [answer.number for answer in answers] == numbers[::-1][: len(expected)]


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


def test_answers_with_ids_beyond_the_vocabulary_are_left_out() -> None:
    recorded = in_memory()
    recorded.add([1, 999])
    recorded.add([1, 1000])
    assert tokens_of(found(recorded)) == [[1, 999]]
    nobody = VocabularyKey("nobody", 7)
    assert list(latest_answers(recorded.connection, nobody, 100)) == []


def test_deleted_chats_are_left_out_until_they_are_restored() -> None:
    recorded = in_memory()
    recorded.add([1], conversation="elsewhere")
    with ChatStore(recorded.connection) as store:
        chat = store.begin(None, None, "q").chat
        recorded.add([2], conversation=chat)
        newest = recorded.add([3])
        store.delete(chat)
        assert tokens_of(found(recorded)) == [[3], [1]]
        store.restore(chat)
        assert tokens_of(found(recorded)) == [[3], [2], [1]]
        assert newest_answer(recorded.connection, VOCABULARY) == newest
        assert newest_answer(recorded.connection, OTHER_VOCABULARY) == 0


def test_what_is_forgotten_while_it_is_read_is_left_out() -> None:
    recorded = in_memory()
    first, _, _ = (recorded.add([token] * 5) for token in (1, 2, 3))
    answers = latest_answers(recorded.connection, VOCABULARY, 100)
    assert next(answers).tokens == (3,) * 5
    with transaction(recorded.connection):  # nothing is locked meanwhile
        recorded.store.remove(first)
    assert tokens_of(list(answers)) == [[2] * 5]


def test_an_answer_comes_with_what_it_followed() -> None:
    recorded = in_memory()
    recorded.add([1, 2, 3], [9, 8], conversation="talk")
    recorded.add(range(300), range(300))
    [long, short] = found(recorded)
    assert (short.tokens, short.context, short.conversation) == ((1, 2, 3), (9, 8), "talk")
    assert (long.context, long.conversation) == (tuple(range(300)[-MAX_CONTEXT:]), None)
