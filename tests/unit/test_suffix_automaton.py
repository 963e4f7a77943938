"""The suffix automaton against a scan of the whole text by the definitions."""

from __future__ import annotations

import doctest
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgespec.lookup import suffix_automaton
from edgespec.lookup.suffix_automaton import MAX_LINKS, ROOT, Continuation, Match, SuffixAutomaton

SHORT_TEXTS = st.lists(st.integers(0, 2), min_size=1, max_size=MAX_LINKS)
"""No link path can be longer than the text, so the supports of these are exact."""


def built(text: list[int]) -> SuffixAutomaton:
    automaton = SuffixAutomaton()
    automaton.extend(text)
    return automaton


def ends_of(text: list[int], string: list[int]) -> list[int]:
    """One past the last position of each occurrence of `string`."""
    size = len(string)
    return [end for end in range(size, len(text) + 1) if text[end - size : end] == string]


def longest_earlier_suffix(text: list[int]) -> list[int]:
    for start in range(1, len(text)):
        if len(ends_of(text, text[start:])) > 1:
            return text[start:]
    return []


def continuation_of(text: list[int], string: list[int]) -> Continuation | None:
    """The most frequent follower of `string`; of equals, the one that followed it last."""
    followers = [text[end] for end in ends_of(text, string) if end < len(text)]
    if not followers:
        return None

    def rank(token: int) -> tuple[int, int]:
        last = max(index for index, follower in enumerate(followers) if follower == token)
        return followers.count(token), last

    token = max(followers, key=rank)
    return Continuation(token, len(string) + 1, followers.count(token), len(followers))


@settings(max_examples=300)
@given(SHORT_TEXTS)
@example([0] * MAX_LINKS)
@example([0, 1] * (MAX_LINKS // 2))
@example([0, 0, 1] * 20)
def test_the_longest_match_and_what_followed_it(text: list[int]) -> None:
    automaton = SuffixAutomaton()
    for index, token in enumerate(text, start=1):
        automaton.extend([token])
        match = automaton.longest_match()
        string = longest_earlier_suffix(text[:index])
        assert match.length == len(string)
        if string:
            assert automaton.continuation(match) == continuation_of(text[:index], string)


@given(SHORT_TEXTS)
@example([0] * MAX_LINKS)
def test_every_shorter_match_too(text: list[int]) -> None:
    """Shortening leads to the next suffix that occurs more often, with its own supports."""
    automaton = built(text)
    match: Match | None = automaton.longest_match()
    while match is not None and match.length > 0:
        string = text[len(text) - match.length :]
        assert automaton.continuation(match) == continuation_of(text, string)
        shorter = automaton.shorten(match)
        count, length = len(ends_of(text, string)), shorter.length if shorter else 0
        for size in range(match.length - 1, length, -1):
            assert len(ends_of(text, text[len(text) - size :])) == count
        if shorter is not None:
            assert len(ends_of(text, text[len(text) - length :])) > count
        match = shorter


@given(SHORT_TEXTS, st.integers(1, 12))
def test_following_a_match_token_by_token(text: list[int], steps: int) -> None:
    """A draft of several tokens: each continuation extends the string that led to it."""
    automaton = built(text)
    match = automaton.longest_match()
    string = text[len(text) - match.length :]
    for _ in range(steps):
        if not string:
            return
        guess = automaton.continuation(match)
        assert guess == continuation_of(text, string)
        if guess is None:
            return
        string = [*string, guess.token]
        match = Match(guess.state, guess.length)


@given(st.lists(st.integers(0, 3), max_size=150), st.integers(0, 150))
def test_text_may_come_in_any_pieces(text: list[int], cut: int) -> None:
    whole, pieces = built(text), built(text[:cut])
    pieces.extend(iter(text[cut:]))
    for automaton in (whole, pieces):
        assert automaton.num_tokens == len(text)
    assert pieces.longest_match() == whole.longest_match()
    assert len(pieces._length) == len(whole._length)


@given(st.lists(st.integers(0, 3), max_size=400))
@example([0] * 400)
@example([0, *[1] * 200, 2])
def test_states_are_at_most_twice_the_tokens(text: list[int]) -> None:
    automaton = built(text)
    assert len(automaton._length) <= max(2 * len(text), 1)


@pytest.mark.parametrize("period", [1, 2, 5])
def test_periodic_text_of_any_length_is_still_matched_whole(period: int) -> None:
    text = [index % period for index in range(1000)]
    automaton = built(text)
    match = automaton.longest_match()
    assert match.length == 1000 - period
    for expected in range(20):
        guess = automaton.continuation(match)
        if guess is None:
            shorter = automaton.shorten(match)
            assert shorter is not None
            match = shorter
            guess = automaton.continuation(match)
        assert guess is not None
        assert guess.token == expected % period
        match = Match(guess.state, guess.length)


def test_supports_of_long_varied_text_are_exact() -> None:
    """Link paths of text that is not periodic stay far below MAX_LINKS."""
    stream = random.Random(1)
    text = [stream.randrange(4) for _ in range(1500)]
    automaton = built(text)
    assert max(path_lengths(automaton)) < MAX_LINKS
    match: Match | None = automaton.longest_match()
    while match is not None and match.length > 0:
        string = text[len(text) - match.length :]
        assert automaton.continuation(match) == continuation_of(text, string)
        match = automaton.shorten(match)


def path_lengths(automaton: SuffixAutomaton) -> Iterator[int]:
    for state in range(len(automaton._length)):
        length = 0
        while state > ROOT:
            state, length = automaton._link[state], length + 1
        yield length


class CountingList(list[int]):
    """A list that counts how often an item of it is set."""

    num_set = 0

    def __setitem__(self, index: Any, value: Any) -> None:  # noqa: ANN401
        self.num_set += 1
        super().__setitem__(index, value)


class CountingDict(dict[int, int]):
    """A dictionary that counts, for all of its kind, how often an item is set."""

    num_set = 0

    def __setitem__(self, key: int, value: int) -> None:
        CountingDict.num_set += 1
        super().__setitem__(key, value)


@pytest.mark.parametrize("name", ["one token", "period of 7", "random", "varied, then one token"])
def test_the_work_of_a_token_is_bounded(name: str) -> None:
    stream = random.Random(2)
    varied = [stream.randrange(50) for _ in range(1000)]
    text = {
        "one token": [0] * 2000,
        "period of 7": [index % 7 for index in range(2000)],
        "random": [stream.randrange(3) for _ in range(2000)],
        "varied, then one token": varied + [0] * 1000,
    }[name]
    automaton = SuffixAutomaton()
    automaton._support = counted = CountingList(automaton._support)
    most = 0
    for token in text:
        before = counted.num_set
        automaton.extend([token])
        most = max(most, counted.num_set - before)
    assert most <= MAX_LINKS


@pytest.mark.parametrize("period", [1, 7, 1000])
def test_the_work_of_a_text_grows_no_faster_than_the_text(
    period: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every transition is set once when made and moved at most once per clone on its path."""
    add_state = SuffixAutomaton._add_state

    def add_counting(
        self: SuffixAutomaton, length: int, followers: dict[int, int], support: int
    ) -> int:
        return add_state(self, length, CountingDict(followers), support)

    monkeypatch.setattr(SuffixAutomaton, "_add_state", add_counting)
    stream = random.Random(3)
    text = [index % period + 10 * (stream.random() < 0.05) for index in range(3000)]
    CountingDict.num_set = 0
    built(text)
    assert len(text) // 2 < CountingDict.num_set <= 6 * len(text)


def test_equally_frequent_continuations_go_by_the_last_one() -> None:
    automaton = built([1, 5, 1, 6, 1])
    guess = automaton.continuation(automaton.longest_match())
    assert guess == Continuation(token=6, length=2, support=1, total=2)
    automaton.extend([5, 9, 1])
    guess = automaton.continuation(automaton.longest_match())
    assert guess == Continuation(token=5, length=2, support=2, total=3)


def test_a_more_frequent_continuation_wins_over_a_later_one() -> None:
    automaton = built([1, 5, 0, 1, 5, 0, 1, 6, 1])
    guess = automaton.continuation(automaton.longest_match())
    assert guess == Continuation(token=5, length=2, support=2, total=3)


def test_nothing_matches_in_new_text() -> None:
    for text in ([], [1], [1, 2, 3]):
        match = built(text).longest_match()
        assert match == Match(ROOT, 0)
        assert built(text).shorten(match) is None


def test_an_empty_automaton_has_no_continuation() -> None:
    assert SuffixAutomaton().continuation(Match(ROOT, 0)) is None


def test_the_example_in_the_text_holds() -> None:
    assert doctest.testmod(suffix_automaton).failed == 0
