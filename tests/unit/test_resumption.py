"""Where a copy goes on after a change, against sources whose every token is different."""

from __future__ import annotations

import doctest
import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgespec.lookup import resumption
from edgespec.lookup import surest as merging
from edgespec.lookup.resumption import AHEAD, PRIOR, Resumption
from edgespec.lookup.surest import surest
from edgespec.passes import Proposal

SOURCE = list(range(100, 160))
"""What would have been said; 100 was expected at the break."""


def after(*said: int, source: Sequence[int] = SOURCE) -> Resumption:
    made = Resumption(source)
    for token in said:
        made.take(token)
    return made


def guesses(made: Resumption, count: int = 3, prefix: Sequence[int] = ()) -> list[int]:
    return [step.token for step in itertools.islice(made.steps(prefix), count)]


def test_docstring_examples_hold() -> None:
    for module in (resumption, merging):
        assert doctest.testmod(module) == (0, doctest.testmod(module).attempted)
        assert doctest.testmod(module).attempted > 0


def test_right_after_the_break_a_replacement_is_assumed() -> None:
    assert guesses(after(7)) == [101, 102, 103]
    assert guesses(after(7, 8)) == [102, 103, 104]
    assert guesses(after(7, 8, 9)) == [], "nothing agreed: it is no replacement"


@pytest.mark.parametrize(
    ("said", "following"),
    [
        ((103,), [104, 105, 106]),
        ((7, 101), [102, 103, 104]),
        ((7, 8, 9, 100), [101, 102, 103]),
        ((7, 8, 9, 10, 130), [131, 132, 133]),
    ],
    ids=["left out", "replaced", "put in", "much replaced"],
)
def test_one_token_is_enough_to_see_where_it_goes_on(
    said: tuple[int, ...], following: list[int]
) -> None:
    assert guesses(after(*said)) == following


@given(
    st.integers(0, 30),
    st.lists(st.integers(0, 99), max_size=15),
    st.integers(1, 20),
)
def test_back_in_the_source_it_follows_it(skipped: int, other: list[int], agreed: int) -> None:
    """Whatever was left out and put in, what agrees is followed, ever more surely."""
    start = skipped
    said = [*other, *SOURCE[start : start + agreed]]
    if not said[0] or said[0] == SOURCE[0]:
        return
    made = after(*said)
    if not made.is_alive:
        assert len(other) + agreed > 24 - len(other)
        return
    assert guesses(made) == SOURCE[start + agreed : start + agreed + 3]
    rows = [step.kind // 4 for step in made.steps()]
    assert rows == sorted(rows)


def test_the_longest_agreement_counts_and_of_equals_the_nearest() -> None:
    source = [1, 50, 2, 3, 60, 9, 2, 3, 70]
    assert guesses(after(8, 8, 2, 3, source=source), 1) == [60]
    assert guesses(after(8, 9, 2, 3, source=source), 1) == [70]


def test_a_second_change_soon_after_is_another_break() -> None:
    made = after(7, *SOURCE[1:6])
    assert guesses(made, 1) == [106]
    made.take(8)
    assert guesses(made, 2) == [107, 108], "106 was replaced"
    made.take(107)
    assert guesses(made, 2) == [108, 109]


def test_after_long_without_agreement_it_is_over() -> None:
    made = after(*range(24))
    assert made.is_alive
    made.take(99)
    assert not made.is_alive


def test_a_copy_that_goes_on_is_never_over() -> None:
    made = after(7, *SOURCE[1:])
    assert made.is_alive
    assert guesses(made) == []


def test_places_far_ahead_are_another_matter() -> None:
    source = list(range(1000, 1200))
    assert guesses(after(7, 8, 9, 1090, source=source)) == []
    assert guesses(after(7, 8, 9, 1040, source=source), 1) == [1041]


def test_only_so_much_is_kept_of_the_source() -> None:
    long = list(range(1000, 1000 + 2 * AHEAD))
    made = after(1001, source=long)
    assert len(list(made.steps())) == AHEAD - 2


def test_after_tokens_of_others_it_goes_on_only_if_it_agrees() -> None:
    made = after(7, 101)
    assert guesses(made, 2, prefix=[102, 103]) == [104, 105]
    assert guesses(made, 2, prefix=[102, 5]) == []
    plain = [step.kind for step in itertools.islice(made.steps(), 2, 5)]
    assert [step.kind for step in itertools.islice(made.steps([102, 103]), 3)] == plain


@given(
    st.lists(st.integers(0, 3), max_size=30),
    st.lists(st.integers(0, 3), min_size=1, max_size=30),
    st.lists(st.integers(0, 3), max_size=3),
)
def test_any_text_gives_kinds_that_have_a_prior(
    source: list[int], said: list[int], prefix: list[int]
) -> None:
    made = after(*said, source=source)
    steps = list(made.steps(prefix))
    assert all(0 <= step.kind < len(PRIOR) for step in steps)
    assert [step.token for step in steps] == source[len(source) - len(steps) :]


# -- merging ----------------------------------------------------------------------------------

PROPOSALS = st.lists(
    st.builds(Proposal, st.integers(0, 2), st.sampled_from([0.2, 0.4, 0.6])), max_size=6
)


@given(st.lists(PROPOSALS, max_size=4))
def test_each_guess_is_the_surest_of_those_that_agreed(sources: list[list[Proposal]]) -> None:
    merged = list(surest([iter(source) for source in sources]))
    alive = sources
    for place, guess in enumerate(merged):
        offered = [source[place] for source in alive if len(source) > place]
        assert guess in offered
        assert guess.acceptance == max(other.acceptance for other in offered)
        alive = [s for s in alive if len(s) > place and s[place].token == guess.token]
    assert all(len(source) <= len(merged) for source in alive)


def test_no_source_is_asked_sooner_than_needed() -> None:
    asked: list[int] = []

    def source() -> itertools.chain[Proposal]:
        def tell(number: int) -> Proposal:
            asked.append(number)
            return Proposal(number, 0.5)

        return itertools.chain(map(tell, range(5)))

    merged = surest([source()])
    assert asked == []
    next(merged)
    assert asked == [0]
