"""Merging chats and sequences: nothing twice, every version kept, each below what it was below."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from token_support import VOCABULARY, Recorded, in_memory

from edgespec.cache.chats.record_merger import RecordMerger
from edgespec.cache.chats.store import ChatStore
from edgespec.cache.database import transaction
from edgespec.cache.tokens.sequences import Recording
from edgespec.cache.upkeep.check import problems
from edgespec.chats import Chat, ChatHead, ChatMessage, ChatSettings, path_to

Way = tuple[tuple[str, str], ...]
"""A message by all that is said on the way to it."""


def chat(messages: list[ChatMessage], title: str = "title", updated: float = 9.0) -> Chat:
    head = ChatHead("c", title, 1.0, updated, len(messages), origin="import")
    return Chat(head, ChatSettings(), tuple(messages), messages[-1].id if messages else None)


@st.composite
def chats(draw: st.DrawFn) -> Chat:
    """A tree in which versions may be alike."""
    messages: list[ChatMessage] = []
    for number in range(1, draw(st.integers(0, 7)) + 1):
        parent = draw(st.sampled_from([None, *(each.id for each in messages)]))
        role, content = draw(st.sampled_from(["user", "assistant"])), draw(st.sampled_from("ab"))
        messages.append(ChatMessage(number, parent, role, content, 1.0))
    return chat(messages)


def merge(recorded: Recorded, one: Chat) -> bool:
    merger = RecordMerger(recorded.connection)
    with transaction(recorded.connection):
        return merger.chat(one)


def ways(one: Chat) -> Counter[Way]:
    """How often something is said after the same words, among versions of one message."""
    most: Counter[Way] = Counter()
    for message in one.messages:
        beside = [
            each
            for each in one.messages
            if (each.parent, each.role, each.content)
            == (message.parent, message.role, message.content)
        ]
        way = tuple((each.role, each.content) for each in path_to(one.messages, message.id))
        most[way] = max(most[way], len(beside))
    return most


def held(recorded: Recorded) -> Chat:
    found = ChatStore(recorded.connection).load("c")
    assert found is not None
    return found


@given(chats(), chats())
def test_both_trees_are_kept_and_nothing_comes_twice(here: Chat, incoming: Chat) -> None:
    recorded = in_memory()
    merge(recorded, here)
    assert ways(held(recorded)) == ways(here) and len(held(recorded).messages) == len(here.messages)
    merge(recorded, incoming)
    merged = held(recorded)
    assert set(ways(merged)) == set(ways(here)) | set(ways(incoming))
    assert merged.messages[: len(here.messages)] == here.messages
    for one in (here, incoming):
        assert not merge(recorded, one), "a second time adds nothing"
    assert held(recorded) == merged
    assert problems(recorded.connection) == []
    recorded.database.close()


def test_a_newer_copy_of_a_chat_continues_it_and_is_shown() -> None:
    recorded = in_memory()
    turns = [
        ChatMessage(number, number - 1 or None, "user", f"turn {number}", float(number))
        for number in range(1, 6)
    ]
    assert merge(recorded, chat(turns[:3]))
    assert merge(recorded, chat(turns, "another title", 20.0))
    whole = held(recorded)
    assert (whole.tip, whole.head.title, whole.head.updated) == (5, "title", 20.0)
    assert whole.messages == tuple(turns)
    ChatStore(recorded.connection).delete("c")
    assert not merge(recorded, chat(turns[:2]))
    assert held(recorded).messages == tuple(turns), "it was asked for again"
    assert held(recorded).tip == 5


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
