"""Recorded answers come back as they were given, oldest first."""

from __future__ import annotations

from edgespec.cache.database import open_in_memory
from edgespec.cache.sessions import recorded_answers
from edgespec.cache.tokens import MAX_CONTEXT, Recording, TokenStore, VocabularyKey

KEY, OTHER = VocabularyKey("one", 1000), VocabularyKey("other", 1000)


def test_answers_come_with_what_they_followed() -> None:
    with open_in_memory() as database:
        store = TokenStore(database.connection)
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
        store = TokenStore(database.connection)
        scope = store.scope(KEY, "model")
        for token in range(9):
            store.record(scope, Recording([token]))
        found = list(recorded_answers(database.connection, KEY, 3))
        assert [answer.tokens for answer in found] == [(6,), (7,), (8,)]


def test_tokens_outside_the_vocabulary_and_unknown_vocabularies_give_nothing() -> None:
    with open_in_memory() as database:
        store = TokenStore(database.connection)
        store.record(store.scope(KEY, "model"), Recording([1, 1000]))
        assert list(recorded_answers(database.connection, KEY, 10)) == []
        assert list(recorded_answers(database.connection, OTHER, 10)) == []
