"""The gate: what may serve, by text that nobody had learned from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgespec.learning.online.correction import Correction
from edgespec.learning.online.datastore import Datastore
from edgespec.learning.online.gate import (
    ALONE,
    BOTH,
    CANDIDATE,
    CORRECTED,
    MIN_TRIAL,
    NEIGHBOURS,
    Gate,
)
from edgespec.learning.online.neighbours import Neighbours

WIDTH = 4


def correction(bias: float) -> Correction:
    one = np.full(1, bias, dtype=np.float32)
    rows = np.array([3], dtype=np.int32)
    nothing = np.zeros((0, WIDTH), dtype=np.float32)
    return Correction(rows, nothing, np.zeros((1, 0), dtype=np.float32), one)


def hits(count: int, *shares: float) -> NDArray[np.bool_]:
    """`count` positions of which these shares were guessed right, by each of the five."""
    places = np.arange(count) / count
    return np.stack([places < share for share in shares])


def neighbours(seed: int) -> Neighbours:
    memory, random = Datastore(WIDTH), np.random.default_rng(seed)
    states = random.normal(0, 1, (2000, WIDTH)).astype(np.float16)
    memory.add(states, np.arange(2000, dtype=np.int32) % 7)
    found = memory.index()
    assert found is not None
    return found


def corrected(given: Correction) -> Gate:
    """A gate with a correction in use, which serves."""
    gate = Gate(WIDTH)
    gate.offer(given)
    assert gate.judge(hits(MIN_TRIAL, 0.5, 0.5, 0.5, 0.5, 0.8)) == "promoted"
    assert gate.correction is given
    gate.judge(hits(200, 0.5, 0.8, 0.5, 0.8, 0.8))
    assert gate.way == CORRECTED
    return gate


def test_the_drafter_serves_as_it_is_at_first() -> None:
    gate = Gate(WIDTH)
    assert gate.serving.is_none
    assert gate.judge(hits(500, *[0.5] * 5)) == "waiting"
    assert len({id(version) for version in gate.versions()}) == 1


def test_a_better_candidate_is_used_after_enough_text() -> None:
    gate = Gate(WIDTH)
    candidate = correction(1.0)
    assert gate.offer(candidate)
    assert gate.versions()[CANDIDATE].correction is candidate
    assert gate.judge(hits(MIN_TRIAL - 1, 0.5, 0.5, 0.5, 0.5, 0.9)) == "waiting"
    assert gate.correction.is_none
    assert gate.judge(hits(1, *[0] * 5)) == "promoted"
    assert gate.correction is candidate
    assert not gate.has_candidate


def test_what_is_used_serves_only_when_it_leads() -> None:
    gate = Gate(WIDTH)
    gate.offer(correction(1.0))
    gate.judge(hits(MIN_TRIAL, 0.5, 0.5, 0.5, 0.5, 0.6))
    assert gate.serving.is_none
    gate.judge(hits(200, 0.5, 0.5, 0.5, 0.5, 0.5))
    assert gate.serving.is_none
    gate.judge(hits(200, 0.5, 0.6, 0.5, 0.6, 0.6))
    assert gate.serving.correction.bias[0] == 1.0


@pytest.mark.parametrize("candidate", [0.5, 0.49])
def test_a_candidate_must_be_better(candidate: float) -> None:
    gate = corrected(correction(1.0))
    before = gate.correction
    gate.offer(correction(2.0))
    assert gate.judge(hits(200, 0.4, 0.5, 0.4, 0.5, candidate)) == "refused"
    assert gate.correction is before


def test_a_poisoned_candidate_is_told_from_chance() -> None:
    gate = corrected(correction(1.0))
    gate.offer(correction(50.0))
    assert gate.judge(hits(200, 0.5, 0.6, 0.5, 0.6, 0.2)) == "harmful"
    assert gate.serving.correction.bias[0] == 1.0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_is_never_tried(bad: float) -> None:
    gate = Gate(WIDTH)
    assert not gate.offer(correction(bad))
    assert not gate.has_candidate
    assert gate.versions()[CANDIDATE].is_none


@pytest.mark.parametrize("way", [CORRECTED, NEIGHBOURS, BOTH])
def test_what_serves_is_dropped_when_the_drafter_alone_is_better(way: int) -> None:
    gate = Gate(WIDTH, correction(1.0), way)
    gate.refresh(neighbours(1))
    assert not gate.serving.is_none
    for _ in range(6):
        gate.judge(hits(80, 0.7, 0.6, 0.6, 0.6, 0.6))
    assert gate.way == ALONE
    assert gate.serving.is_none


def test_it_stays_as_long_as_it_is_as_good() -> None:
    gate = corrected(correction(1.0))
    for _ in range(100):
        gate.judge(hits(80, 0.65, 0.65, 0.6, 0.6, 0.6))
        assert gate.way == CORRECTED


def test_the_best_way_serves() -> None:
    gate = corrected(correction(1.0))
    first, second = neighbours(1), neighbours(2)
    gate.refresh(first)
    for _ in range(20):
        gate.judge(hits(80, 0.5, 0.6, 0.55, 0.7, 0.6))
    assert gate.way == BOTH
    assert gate.serving.neighbours is first
    assert gate.serving.correction.bias[0] == 1.0
    gate.refresh(second)  # later text serves at once
    assert gate.serving.neighbours is second
    for _ in range(60):
        gate.judge(hits(80, 0.5, 0.4, 0.7, 0.6, 0.4))
    assert gate.way == NEIGHBOURS
    assert gate.serving.correction.is_none


def test_versions_that_are_the_same_are_the_same_object() -> None:
    gate = Gate(WIDTH)
    gate.refresh(neighbours(1))
    alone, in_use, asking, both, candidate = gate.versions()
    assert alone is in_use is candidate
    assert asking is both is not alone


@given(st.lists(st.tuples(*[st.floats(0, 1)] * 3), max_size=60), st.integers(1, 200))
def test_only_what_was_ahead_of_the_one_in_use_takes_its_place(
    shares: list[tuple[float, float, float]], count: int
) -> None:
    gate = Gate(WIDTH)
    lead, num_tried = 0, 0
    offered = gate.correction
    for number, (alone, used, candidate) in enumerate(shares):
        if not gate.has_candidate:
            offered = correction(float(number + 1))
            gate.offer(offered)
            lead = num_tried = 0
        in_use = alone if gate.correction.is_none else used
        judged = hits(count, alone, in_use, alone, in_use, candidate)
        lead += int(judged[CANDIDATE].sum()) - int(judged[CORRECTED].sum())
        num_tried += count
        if gate.judge(judged) == "promoted":
            assert gate.correction is offered
            assert lead > 0
            assert num_tried >= MIN_TRIAL
        else:
            assert gate.correction is not offered


@given(st.integers(0, 2**32 - 1))
def test_over_a_long_time_what_serves_is_hardly_worse_than_the_drafter_alone(seed: int) -> None:
    """Whatever is better for a while: 40 answers of 80 positions, changing every ten."""
    random = np.random.default_rng(seed)
    gate = Gate(WIDTH, correction(1.0), BOTH)
    gate.refresh(neighbours(1))
    lost = 0
    for number in range(40):
        if number % 10 == 0:
            shares = random.uniform(0.55, 0.75, 5)
        judged = random.random((5, 80)) < shares[:, None]
        lost += int(judged[ALONE].sum()) - int(judged[gate.way].sum())
        gate.judge(judged)
    assert lost / (40 * 80) < 0.1
