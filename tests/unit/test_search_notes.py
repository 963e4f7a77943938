"""Notes of a search: what is found again is what was noted."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgespec.cache.database import open_in_memory
from edgespec.cache.facts import Facts
from edgespec.forms.notes import Notes
from edgespec.forms.weighing import Readings

GUESSES = st.lists(st.tuples(st.booleans(), st.floats(0, 1, width=32)), max_size=40)


def readings(guesses: list[tuple[bool, float]]) -> Readings:
    hits, sureness = [hit for hit, _ in guesses], [sure for _, sure in guesses]
    return Readings(np.array(hits, dtype=np.bool_), np.array(sureness, dtype=np.float32))


@given(st.lists(GUESSES, max_size=3))
def test_readings_come_back_rounded(heads: list[list[tuple[bool, float]]]) -> None:
    with open_in_memory() as database:
        store, noted = Facts(database), [readings(head) for head in heads]
        Notes(store, "key").put_readings("text", noted)
        found = Notes(store, "key").readings("text")
    assert found is not None
    for before, after in zip(noted, found, strict=True):
        np.testing.assert_array_equal(after.hits, before.hits)
        np.testing.assert_allclose(after.sureness, before.sureness, atol=1e-5)


def test_each_search_has_its_own_until_it_is_over() -> None:
    with open_in_memory() as database:
        store = Facts(database)
        notes = Notes(store, "one")
        notes.put("costs", [1.0, 2.0])
        assert Notes(store, "one").get("costs") == [1.0, 2.0]
        assert Notes(store, "other").get("costs") is None
        notes.clear()
        assert notes.get("costs") is None
        assert Notes(store, "one").get("costs") is None


def test_without_a_store_they_last_as_long_as_the_search() -> None:
    notes = Notes()
    notes.put("costs", [1.0])
    assert notes.get("costs") == [1.0]
    assert notes.readings("text") is None
    notes.clear()
    assert notes.get("costs") is None
