"""A drafter that is mostly wrong is asked ever more rarely, and comes back when it is right."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgespec.estimates.recent import Outlook

PRIOR = 0.7


def test_it_is_the_prior_at_first_and_the_truth_later() -> None:
    outlook = Outlook(PRIOR)
    assert outlook.value == pytest.approx(PRIOR)
    for index in range(400):
        outlook.observe(index % 4 == 0)
    assert outlook.value == pytest.approx(0.25, abs=0.1)


def test_a_dozen_wrong_guesses_are_enough() -> None:
    outlook = Outlook(PRIOR)
    for _ in range(12):
        outlook.observe(False)
    assert outlook.value < 0.2


@given(st.lists(st.one_of(st.booleans(), st.none())))
def test_it_is_always_a_probability(events: list[bool | None]) -> None:
    outlook = Outlook(PRIOR)
    for event in events:
        if event is None:
            outlook.end_pass(asked=False)
        else:
            outlook.observe(event)
            outlook.end_pass(asked=True)
        assert 0 < outlook.value < 1


def trials(outlook: Outlook, num_passes: int, *, right: bool) -> list[int]:
    """Passes at which a planner that wants 0.5 asks, once each time."""
    asked = []
    for index in range(num_passes):
        if outlook.value >= 0.5:
            asked.append(index)
            outlook.observe(right)
        outlook.end_pass(asked=bool(asked) and asked[-1] == index)
    return asked


def test_trials_grow_rarer_while_they_fail() -> None:
    outlook = Outlook(PRIOR)
    for _ in range(40):
        outlook.observe(False)
    asked = trials(outlook, 2000, right=False)
    gaps = [after - before for before, after in itertools.pairwise(asked)]
    assert gaps == sorted(gaps)
    assert len(asked) < 14
    assert gaps[-1] > 10 * gaps[0]


def test_trials_that_succeed_bring_it_back() -> None:
    outlook = Outlook(PRIOR)
    for _ in range(40):
        outlook.observe(False)
    trials(outlook, 2000, right=False)
    asked = trials(outlook, 1000, right=True)
    assert asked[-100:] == list(range(900, 1000)), "in the end it is asked every time"


def test_another_answer_may_be_on_another_subject() -> None:
    outlook = Outlook(PRIOR)
    for _ in range(40):
        outlook.observe(False)
    before = outlook.value
    outlook.begin()
    assert before < outlook.value < PRIOR
    for _ in range(10):
        outlook.begin()
    assert outlook.value == pytest.approx(PRIOR, abs=0.01)


def test_another_answer_is_tried_soon() -> None:
    outlook = Outlook(PRIOR)
    for _ in range(40):
        outlook.observe(False)
    late = trials(outlook, 500, right=False)
    for _ in range(40):
        outlook.observe(False)
    outlook.begin()
    [first, *_] = trials(outlook, 100, right=False)
    assert first < late[-1] - late[-2]
