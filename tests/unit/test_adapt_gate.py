"""The gate: who may serve, by text that nobody had learned from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgespec.adapt.correction import Correction
from edgespec.adapt.gate import MIN_TRIAL, Gate
from edgespec.adapt.memory import Memory
from edgespec.adapt.version import Version

WIDTH = 4


def version(bias: float) -> Version:
    one = np.full(1, bias, dtype=np.float32)
    rows = np.array([3], dtype=np.int32)
    nothing = np.zeros((0, WIDTH), dtype=np.float32)
    return Version(Correction(rows, nothing, np.zeros((1, 0), dtype=np.float32), one))


def hits(count: int, alone: float, serving: float, candidate: float) -> NDArray[np.bool_]:
    """`count` positions of which these shares were guessed right."""
    places = np.arange(count) / count
    return np.stack([places < share for share in (alone, serving, candidate)])


def serving(gate: Gate, given: Version) -> Gate:
    gate.offer(given)
    assert gate.judge(hits(MIN_TRIAL, 0.5, 0.5, 0.8)) == "promoted"
    assert gate.serving is given
    return gate


def test_the_drafter_serves_as_it_is_at_first() -> None:
    gate = Gate(WIDTH)
    assert gate.serving.is_none
    assert gate.judge(hits(500, 0.5, 0.5, 0.5)) == "waiting"


def test_a_better_candidate_serves_after_enough_text() -> None:
    gate = Gate(WIDTH)
    candidate = version(1.0)
    assert gate.offer(candidate)
    assert gate.versions()[2] is candidate
    assert gate.judge(hits(MIN_TRIAL - 1, 0.5, 0.5, 0.9)) == "waiting"
    assert gate.serving.is_none
    assert gate.judge(hits(1, 0, 0, 0)) == "promoted"
    assert gate.serving is candidate
    assert not gate.has_candidate


@pytest.mark.parametrize(("candidate", "verdict"), [(0.5, "refused"), (0.49, "refused")])
def test_a_candidate_must_be_better(candidate: float, verdict: str) -> None:
    gate = serving(Gate(WIDTH), version(1.0))
    before = gate.serving
    gate.offer(version(2.0))
    assert gate.judge(hits(200, 0.4, 0.5, candidate)) == verdict
    assert gate.serving is before


def test_a_poisoned_candidate_is_told_from_chance() -> None:
    gate = serving(Gate(WIDTH), version(1.0))
    gate.offer(version(50.0))
    assert gate.judge(hits(200, 0.5, 0.6, 0.2)) == "harmful"
    assert gate.serving.correction.bias[0] == 1.0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_is_never_tried(bad: float) -> None:
    gate = Gate(WIDTH)
    assert not gate.offer(version(bad))
    assert not gate.has_candidate


def test_the_serving_one_is_dropped_when_the_drafter_alone_is_better() -> None:
    gate = serving(Gate(WIDTH), version(1.0))
    verdicts = [gate.judge(hits(80, 0.7, 0.6, 0.6)) for _ in range(40)]
    assert "dropped" in verdicts
    assert verdicts.index("dropped") < 8
    assert gate.serving.is_none


def test_the_serving_one_stays_as_long_as_it_is_better() -> None:
    gate = serving(Gate(WIDTH), version(1.0))
    for _ in range(100):
        assert gate.judge(hits(80, 0.6, 0.65, 0.65)) == "waiting"
    assert not gate.serving.is_none


@given(st.lists(st.tuples(*[st.floats(0, 1)] * 3), max_size=60), st.integers(1, 200))
def test_only_what_was_ahead_of_the_serving_one_comes_to_serve(
    shares: list[tuple[float, float, float]], count: int
) -> None:
    gate = Gate(WIDTH)
    lead, num_tried = 0, 0
    for number, (alone, served, candidate) in enumerate(shares):
        if not gate.has_candidate:
            gate.offer(version(float(number + 1)))
            lead = num_tried = 0
        judged = hits(count, alone, alone if gate.serving.is_none else served, candidate)
        lead += int(judged[2].sum()) - int(judged[1].sum())
        num_tried += count
        on_trial = gate.versions()[2]
        if gate.judge(judged) == "promoted":
            assert gate.serving is on_trial
            assert lead > 0
            assert num_tried >= MIN_TRIAL
        else:
            assert gate.serving is not on_trial


def test_later_neighbours_are_asked_by_those_that_ask() -> None:
    memory = Memory(WIDTH)
    random = np.random.default_rng(1)
    memory.add(
        random.normal(0, 1, (2000, WIDTH)).astype(np.float16), np.arange(2000, dtype=np.int32) % 7
    )
    earlier = memory.index()
    memory.add(
        random.normal(0, 1, (50, WIDTH)).astype(np.float16), np.arange(50, dtype=np.int32) % 7
    )
    later = memory.index()
    assert earlier is not None
    assert later is not None
    gate = serving(Gate(WIDTH), Version(version(1.0).correction, earlier))
    gate.offer(version(2.0))
    gate.refresh(later)
    assert gate.serving.neighbours is later
    assert gate.versions()[0].neighbours is gate.versions()[2].neighbours is None
