"""Facts of a model as JSON and back, and the name of a file's content."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgespec.machine.facts import ModelFacts, file_fingerprint
from edgespec.machine.probe import CANDIDATES, ROWS
from edgespec.planning.cost import CostTable

MB = 1 << 20
FINITE = st.floats(0, 1e6)
TIMES = st.dictionaries(st.integers(2, 32), st.floats(0.001, 1e4), max_size=8).flatmap(
    lambda others: st.floats(0.001, 1e4).map(lambda one: {1: one, **others})
)
TABLES = st.builds(
    CostTable,
    short_context=st.integers(1, 100),
    long_context=st.integers(101, 10_000),
    short_ms=TIMES,
    long_ms=TIMES,
)
FACTS = st.builds(
    ModelFacts,
    setting=st.sampled_from(CANDIDATES),
    max_rows=st.sampled_from((1, *ROWS)),
    exactness=st.sampled_from(["identical", "near-ties"]),
    margin=FINITE,
    table=TABLES,
    measured_in_s=FINITE,
    spread=st.floats(1, 100),
    tried=st.lists(
        st.tuples(st.text(max_size=8), st.sampled_from((1, *ROWS)), FINITE, FINITE), max_size=5
    ).map(tuple),
)
SCALARS = st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@given(FACTS)
def test_facts_survive_json(facts: ModelFacts) -> None:
    assert ModelFacts.from_json(json.loads(json.dumps(facts.to_json()))) == facts


@given(FACTS, st.data())
def test_facts_with_a_part_missing_are_none(facts: ModelFacts, data: st.DataObject) -> None:
    value = json.loads(json.dumps(facts.to_json()))
    del value["is_provisional"]  # facts of earlier versions have none
    assert ModelFacts.from_json(value) == dataclasses.replace(facts, is_provisional=False)
    missing = data.draw(st.sampled_from(list(value)))
    del value[missing]
    assert ModelFacts.from_json(value) is None


@given(FACTS, st.data())
def test_tables_without_the_cost_of_one_row_are_none(
    facts: ModelFacts, data: st.DataObject
) -> None:
    value = json.loads(json.dumps(facts.to_json()))
    del value["table"][data.draw(st.sampled_from(["short_ms", "long_ms"]))]["1"]
    assert ModelFacts.from_json(value) is None


@given(FACTS, st.data(), JSON)
def test_garbage_in_any_place_never_raises(
    facts: ModelFacts, data: st.DataObject, garbage: object
) -> None:
    value = json.loads(json.dumps(facts.to_json()))
    before = copy.deepcopy(value)
    place: Any = value
    key: Any = data.draw(st.sampled_from(list(value)))
    while isinstance(place[key], dict) and data.draw(st.booleans()):
        place = place[key]
        key = data.draw(st.sampled_from(list(place)))
    place[key] = garbage
    read = ModelFacts.from_json(value)
    assert read is None or isinstance(read.table, CostTable)
    if value == before:
        assert read == facts


@given(st.dictionaries(st.text(max_size=8), JSON, max_size=4))
def test_any_other_object_is_none(value: dict[str, object]) -> None:
    assert ModelFacts.from_json(value) is None


@pytest.fixture(scope="module")
def large_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fingerprint") / "large"
    path.write_bytes(bytes(7 * MB))
    return path


@pytest.mark.parametrize(
    "place", [0, MB - 1, 7 * MB // 2, 9 * MB // 2 - 1, 6 * MB, 7 * MB - 1], ids=str
)
def test_the_name_changes_with_start_middle_and_end(large_file: Path, place: int) -> None:
    before = file_fingerprint(large_file)
    _put(large_file, place, b"\x01")
    assert file_fingerprint(large_file) != before
    _put(large_file, place, b"\x00")
    assert file_fingerprint(large_file) == before


def test_the_name_changes_with_the_size(tmp_path: Path) -> None:
    path = tmp_path / "growing"
    names = set()
    sizes = (0, 1, 2, MB - 1, MB, MB + 1, 2 * MB, 3 * MB, 3 * MB + 1)
    for size in sizes:
        path.write_bytes(bytes(size))
        names.add(file_fingerprint(path))
    assert len(names) == len(sizes)


def test_the_name_is_the_contents_alone(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).write_bytes(b"the same")
    assert file_fingerprint(tmp_path / "one") == file_fingerprint(tmp_path / "other")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=1, max_size=200), st.data())
def test_every_byte_of_a_small_file_counts(
    tmp_path: Path, content: bytes, data: st.DataObject
) -> None:
    path = tmp_path / "small"
    path.write_bytes(content)
    before = file_fingerprint(path)
    place = data.draw(st.integers(0, len(content) - 1))
    _put(path, place, bytes([content[place] ^ data.draw(st.integers(1, 255))]))
    assert file_fingerprint(path) != before


def _put(path: Path, place: int, byte: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(byte)
