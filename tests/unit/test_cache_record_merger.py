"""Merging conversations and sequences: nothing twice, nothing out of order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from token_support import VOCABULARY, Recorded, in_memory

from edgespec.cache.chats.conversations import Conversations, StoredMessage
from edgespec.cache.chats.record_merger import RecordMerger
from edgespec.cache.database import transaction
from edgespec.cache.tokens.sequences import Recording
from edgespec.cache.upkeep.check import problems

said = st.lists(
    st.builds(
        StoredMessage,
        st.sampled_from(["user", "assistant"]),
        st.sampled_from(["yes", "no", "why"]),
        st.sampled_from([1.0, 2.0]),
    ),
    max_size=6,
)


def merge(recorded: Recorded, messages: list[StoredMessage]) -> bool:
    merger = RecordMerger(recorded.connection)
    with transaction(recorded.connection):
        return merger.conversation("c", "title", 1.0, messages)


def messages(recorded: Recorded) -> list[StoredMessage]:
    return Conversations(recorded.connection).messages("c")


@given(said, said)
def test_incoming_messages_follow_in_their_order(
    here: list[StoredMessage], incoming: list[StoredMessage]
) -> None:
    recorded = in_memory()
    merge(recorded, here)
    assert messages(recorded) == here
    merge(recorded, incoming)
    merged = messages(recorded)
    assert merged[: len(here)] == here
    rest = iter(incoming)
    assert all(message in rest for message in merged[len(here) :]), "in the order given"
    assert sorted(map(repr, merged)) == sorted(map(repr, _union(here, incoming)))
    assert not merge(recorded, incoming), "a second time adds nothing"
    assert messages(recorded) == merged
    assert problems(recorded.connection) == []
    recorded.database.close()


def _union(some: list[StoredMessage], others: list[StoredMessage]) -> list[StoredMessage]:
    """Each message as often as it is in the one where it is more often."""
    left = list(others)
    for message in some:
        if message in left:
            left.remove(message)
    return [*some, *left]


def test_a_newer_copy_of_a_conversation_continues_it() -> None:
    recorded = in_memory()
    turns = [StoredMessage("user", f"turn {number}", float(number)) for number in range(5)]
    assert merge(recorded, turns[:3])
    assert merge(recorded, turns)
    assert messages(recorded) == turns
    assert not merge(recorded, turns[:2])
    assert messages(recorded) == turns


def test_a_sequence_that_was_there_before_is_not_added_again() -> None:
    recorded = in_memory()
    first = RecordMerger(recorded.connection)
    scope = first.scope(VOCABULARY, "model")
    recording = Recording([1, 2, 3], [9], "c")
    with transaction(recorded.connection):
        assert first.sequence(scope, recording, 5.0)
        assert first.sequence(scope, recording, 5.0), "two alike of one source are two"
    with transaction(recorded.connection):
        assert not RecordMerger(recorded.connection).sequence(scope, recording, 5.0)
        assert RecordMerger(recorded.connection).sequence(scope, recording, 6.0)
        assert not RecordMerger(recorded.connection).sequence(scope, Recording([]), 7.0)
    assert recorded.count("sequences") == 3
    with transaction(recorded.connection):
        again = RecordMerger(recorded.connection)
        assert [again.sequence(scope, recording, 5.0) for _ in range(3)] == [False, False, True]
    assert recorded.count("sequences") == 4, "a merge that was interrupted among those alike"
    with pytest.raises(ValueError), transaction(recorded.connection):
        RecordMerger(recorded.connection).sequence(scope, Recording([-1]), 1.0)
    assert recorded.count("sequences") == 4
