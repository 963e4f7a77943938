"""Acceptance estimates: from the prior to the share that is kept, and what is kept of them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgespec.estimates.acceptance import MEMORY, PRIOR_STRENGTH, Acceptance
from edgespec.passes import Proposal

PRIOR = (0.1, 0.4, 0.6, 0.9)


def test_an_estimate_starts_at_its_prior() -> None:
    acceptance = Acceptance([0.2, 0.7, 0.0, 1.0])
    assert acceptance.num_kinds == 4
    assert [acceptance.estimate(kind) for kind in range(2)] == pytest.approx([0.2, 0.7])
    assert 0 < acceptance.estimate(2) < 0.01
    assert 0.99 < acceptance.estimate(3) < 1


@pytest.mark.parametrize("truth", [0.1, 0.5, 0.95])
def test_an_estimate_converges_to_the_share_that_is_kept(truth: float) -> None:
    acceptance = Acceptance([0.5, 0.3])
    stream = random.Random(4)
    for _ in range(1500):
        acceptance.observe(0, stream.random() < truth)
    assert acceptance.estimate(0) == pytest.approx(truth, abs=0.05)
    assert acceptance.estimate(1) == pytest.approx(0.3), "the other kind saw nothing"


def test_a_few_observations_weigh_as_much_as_the_prior() -> None:
    acceptance = Acceptance([0.0])
    for _ in range(int(PRIOR_STRENGTH)):
        acceptance.observe(0, True)
    assert acceptance.estimate(0) == pytest.approx(0.5, abs=0.02)


def test_old_observations_fade() -> None:
    acceptance = Acceptance([0.5])
    for _ in range(5000):
        acceptance.observe(0, True)
    for _ in range(int(MEMORY)):
        acceptance.observe(0, False)
    assert acceptance.estimate(0) == pytest.approx(0.5, abs=0.02)


def test_guesses_up_to_the_first_wrong_one_are_learned_from() -> None:
    guesses = [Proposal(token, 0.5, 1) for token in (5, 6, 7)]
    cut, whole = Acceptance(PRIOR), Acceptance(PRIOR)
    cut.learn(guesses[:2], [5, 9])
    whole.learn(guesses, [5, 9, 7])
    assert whole.export() == cut.export() != Acceptance(PRIOR).export()
    before = whole.export()
    whole.learn(guesses, [])
    assert whole.export() == before


def taught(observations: list[tuple[int, bool]]) -> Acceptance:
    acceptance = Acceptance(PRIOR)
    for kind, kept in observations:
        acceptance.observe(kind, kept)
    return acceptance


OBSERVATIONS = st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=100)


@given(OBSERVATIONS)
def test_what_was_learned_comes_back(observations: list[tuple[int, bool]]) -> None:
    acceptance, again = taught(observations), Acceptance(PRIOR)
    assert again.restore(acceptance.export())
    assert again.export() == acceptance.export()
    for kind in range(4):
        assert again.estimate(kind) == acceptance.estimate(kind)
        again.observe(kind, True)


@given(st.binary(max_size=300))
def test_other_bytes_are_ignored(garbage: bytes) -> None:
    acceptance = taught([(0, True), (1, False)])
    before = acceptance.export()
    for data in (garbage, before[:13] + garbage, before + garbage + b"x"):
        if data != before:
            assert not acceptance.restore(data)
            assert acceptance.export() == before


@given(st.data())
def test_a_damaged_or_cut_off_value_is_ignored(data: st.DataObject) -> None:
    kept, before = taught([(0, True), (1, False)]).export(), Acceptance(PRIOR).export()
    place = data.draw(st.integers(0, len(kept) - 1))
    damaged = bytearray(kept)
    damaged[place] ^= data.draw(st.integers(1, 255))
    fresh = Acceptance(PRIOR)
    assert not fresh.restore(bytes(damaged))
    assert not fresh.restore(kept[:place])
    assert fresh.export() == before


@pytest.mark.parametrize("num_kinds", [1, 3, 5])
def test_what_other_kinds_learned_is_ignored(num_kinds: int) -> None:
    assert not Acceptance(PRIOR).restore(Acceptance([0.5] * num_kinds).export())
