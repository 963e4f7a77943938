"""Neighbours of a hidden state: whom they are, what they say, and how it is remembered."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edgespec.learning.online.correction import Correction, Floats
from edgespec.learning.online.datastore import NUM_TO_FIT, Datastore, DatastoreState
from edgespec.learning.online.neighbours import NUM_NEIGHBOURS, Neighbours, Projection
from edgespec.learning.online.version import Version

WIDTH, NUM_ROWS, NUM_SUBJECTS = 24, 50, 40


class Text:
    """Hidden states of a few subjects with noise; a subject decides what is said."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.subjects: Floats = self.random.normal(0, 3, (NUM_SUBJECTS, WIDTH)).astype(np.float32)
        self.said = self.random.integers(0, NUM_ROWS, NUM_SUBJECTS).astype(np.int32)

    def positions(self, count: int) -> tuple[NDArray[np.float16], NDArray[np.int32]]:
        which = self.random.integers(0, NUM_SUBJECTS, count)
        noise = self.random.normal(0, 0.3, (count, WIDTH))
        return (self.subjects[which] + noise).astype(np.float16), self.said[which]


def filled(text: Text, count: int, capacity: int = 32768) -> Datastore:
    memory = Datastore(WIDTH, capacity)
    for _ in range(0, count, 100):
        memory.add(*text.positions(100))
    return memory


def indexed(memory: Datastore) -> Neighbours:
    neighbours = memory.index()
    assert neighbours is not None
    return neighbours


def test_what_was_said_in_like_places_is_guessed() -> None:
    text = Text(1)
    neighbours = indexed(filled(text, 3000))
    states, said = text.positions(200)
    logits = text.random.normal(0, 1, (200, NUM_ROWS)).astype(np.float32)
    mixed = [neighbours.mix(*pair) for pair in zip(logits, states.astype(np.float32), strict=True)]
    assert np.mean(logits.argmax(axis=1) == said) < 0.1
    assert np.mean([row.argmax() for row in mixed] == said) > 0.95


def test_a_mixture_is_a_distribution() -> None:
    """The drafter's probabilities all shrink by one factor; what they lose the neighbours get."""
    text = Text(2)
    neighbours = indexed(filled(text, 3000))
    states, _ = text.positions(20)
    for state in states.astype(np.float32):
        logits = text.random.normal(0, 2, NUM_ROWS).astype(np.float32)
        mixed = neighbours.mix(logits, state)
        moved = np.flatnonzero(mixed != logits)
        assert 1 <= len(moved) <= NUM_NEIGHBOURS
        before = np.exp(logits) / np.exp(logits).sum()
        after = np.exp(mixed) / np.exp(mixed).sum()
        rest = np.setdiff1d(np.arange(NUM_ROWS), moved)
        kept = after[rest] / before[rest]
        np.testing.assert_allclose(kept, kept[0], rtol=1e-3)
        assert 0.29 < kept[0] < 1  # the neighbours' share is at most 0.7
        assert (after[moved] > before[moved] * kept[0]).all()


def test_far_from_everything_nothing_changes() -> None:
    text = Text(3)
    neighbours = indexed(filled(text, 2000))
    key_space = neighbours.projection.keys(text.subjects)
    logits = np.arange(NUM_ROWS, dtype=np.float32)
    random = np.random.default_rng(4)
    far = [
        state
        for state in random.normal(0, 30, (300, WIDTH)).astype(np.float32)
        if (key_space @ neighbours.projection.keys(state)).max() < 0.35
    ]
    assert far
    for state in far:
        assert neighbours.mix(logits, state) is logits


def test_the_nearest_are_found_without_looking_at_all() -> None:
    text = Text(5)
    neighbours = indexed(filled(text, 6000))
    assert len(neighbours.centres) > 20
    found = 0
    for state in text.positions(100)[0].astype(np.float32):
        key = neighbours.projection.keys(state)
        cosines, said = neighbours._nearest(key)
        assert len(cosines) == len(said) == NUM_NEIGHBOURS
        found += bool(cosines.max() >= (neighbours.keys @ key).max() - 1e-6)
    assert found > 90


def test_clusters_hold_every_position_once() -> None:
    text = Text(6)
    memory = filled(text, 5000)
    neighbours = indexed(memory)
    assert neighbours.starts[0] == 0
    assert neighbours.starts[-1] == len(neighbours.keys) == len(memory) == 5000
    assert (np.diff(neighbours.starts) >= 0).all()
    memory.add(*text.positions(70))
    assert indexed(memory).starts[-1] == 5070


def test_keys_are_of_length_one() -> None:
    states = Text(7).positions(500)[0].astype(np.float32)
    projection = Projection.fitted(states, 8)
    np.testing.assert_allclose(np.linalg.norm(projection.keys(states), axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(projection.keys(states)[3], projection.keys(states[3]), rtol=1e-4)
    assert np.isfinite(projection.keys(projection.mean)).all()


def test_states_without_variance_give_numbers() -> None:
    states = np.ones((NUM_TO_FIT, WIDTH), dtype=np.float16)
    memory = Datastore(WIDTH)
    memory.add(states, np.zeros(NUM_TO_FIT, dtype=np.int32))
    mixed = indexed(memory).mix(np.zeros(NUM_ROWS, np.float32), np.ones(WIDTH, np.float32))
    assert np.isfinite(mixed).all()


@pytest.mark.parametrize("count", [0, 100, NUM_TO_FIT - 100])
def test_too_little_is_no_memory(count: int) -> None:
    memory = filled(Text(8), count)
    assert memory.index() is None
    assert not len(memory.state().said)


def test_the_oldest_are_forgotten() -> None:
    text = Text(9)
    memory = filled(text, 3000, capacity=1500)
    assert len(memory) == 1500
    states, said = text.positions(1500)
    memory.add(states, said)
    assert indexed(memory).starts[-1] == 1500
    np.testing.assert_array_equal(memory.state().said, said)


def test_a_restart_changes_nothing() -> None:
    text = Text(10)
    memory = filled(text, 2500)
    other = Datastore(WIDTH)
    other.restore(memory.state())
    states = text.positions(50)[0].astype(np.float32)
    first, second = indexed(memory), indexed(other)
    logits = np.zeros(NUM_ROWS, dtype=np.float32)
    for state in states:
        guesses = [neighbours.mix(logits, state).argmax() for neighbours in (first, second)]
        assert guesses[0] == guesses[1]
    np.testing.assert_array_equal(memory.state().keys, other.state().keys)
    other.restore(DatastoreState.empty(WIDTH))
    assert other.index() is None


def test_whose_memory_it_is() -> None:
    state = filled(Text(11), 2000).state()
    assert state.fits(WIDTH, NUM_ROWS)
    assert not state.fits(WIDTH + 1, NUM_ROWS)
    assert not state.fits(WIDTH, int(state.said.max()))
    assert DatastoreState.empty(WIDTH).fits(WIDTH, 0)


def test_a_version_corrects_and_then_asks() -> None:
    text = Text(12)
    neighbours = indexed(filled(text, 2000))
    rows = np.array([4], dtype=np.int32)
    one, nothing = np.full(1, 3.0, np.float32), np.zeros((0, WIDTH), np.float32)
    correction = Correction(rows, nothing, np.zeros((1, 0), np.float32), one)
    logits, state = np.zeros(NUM_ROWS, np.float32), text.subjects[0]
    expected = neighbours.mix(correction.apply(logits, state), state)
    np.testing.assert_array_equal(Version(correction, neighbours).apply(logits, state), expected)
    assert Version.none(WIDTH).apply(logits, state) is logits
    assert Version.none(WIDTH).is_none
    assert not Version(Correction.none(WIDTH), neighbours).is_none
    assert not logits.any()
