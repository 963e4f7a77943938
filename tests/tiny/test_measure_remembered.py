"""Facts of a model: measured once, remembered while they hold, cleaned of a busy machine's spikes.

Where a test is about what becomes of times, the times are given in place of the probe's.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rigs import SMALL, OpenModel, WriteModel

from edgespec.cache.database import Database, open_database, open_in_memory
from edgespec.cache.facts import Facts
from edgespec.llama.model import Model, ModelOptions
from edgespec.machine import facts as facts_module
from edgespec.machine.facts import (
    MAX_SPREAD,
    ModelFacts,
    known_model_facts,
    measure_model,
    model_key,
    starting_facts,
)
from edgespec.machine.identity import Machine, this_machine
from edgespec.machine.probe import CANDIDATES, ROWS, SettingResult
from edgespec.planning.cost import CostTable

MEASURING = "measuring this model on this machine (once)"
MACHINE = dataclasses.replace(this_machine(), num_threads=1)


def result(
    short_ms: Mapping[int, float] | None = None,
    long_ms: Mapping[int, float] | None = None,
    max_rows: int = ROWS[-1],
    spread: float = 1.0,
) -> SettingResult:
    margin = 0.0 if max_rows == ROWS[-1] else 0.5
    setting = CANDIDATES[1]
    short, long = (
        {rows: [ms, spread * ms, spread * ms] for rows, ms in each.items()}
        for each in (short_ms or {1: 10.0}, long_ms or {1: 12.0})
    )
    return SettingResult(setting, max_rows, margin, short, long)


@contextmanager
def probing(*results: SettingResult) -> Iterator[None]:
    """Have the probe find `results`, the chosen one last."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(facts_module, "probe_model", lambda *_arguments: results)
        yield


@pytest.fixture
def database() -> Iterator[Database]:
    with open_in_memory() as it:
        yield it


@pytest.fixture(scope="module")
def model(open_model: OpenModel) -> Model:
    return open_model(SMALL)


def measured(model: Model, store: Facts, machine: Machine = MACHINE) -> tuple[ModelFacts, bool]:
    """The facts, and whether they were measured now."""
    lines: list[str] = []
    found = known_model_facts(model, store, machine, lines.append)
    return found, MEASURING in lines


def started(model: Model, store: Facts) -> tuple[ModelFacts, list[str]]:
    """The facts that an answer begins with, and what was told meanwhile."""
    lines: list[str] = []
    return starting_facts(model, store, MACHINE, "stock", lines.append), lines


def test_real_facts_are_remembered_across_runs(model: Model, tmp_path: Path) -> None:
    """If the machine was quiet; if not, the next one who measures decides the same."""
    path = tmp_path / "edgespec.db"
    with open_database(path) as one:
        first, was_measured = measured(model, Facts(one))
    assert was_measured
    with open_database(path) as other:
        assert started(model, Facts(other)) == (first, [])
        second, was_measured = measured(model, Facts(other))
    assert was_measured == (first.spread > MAX_SPREAD)
    if was_measured:
        decided = (second.setting, second.max_rows, second.exactness)
        assert decided == (first.setting, first.max_rows, first.exactness)
    else:
        assert second == first


def test_facts_of_a_quiet_machine_are_measured_once(model: Model, database: Database) -> None:
    store = Facts(database)
    with probing(result(spread=MAX_SPREAD)):
        first, was_measured = measured(model, store)
    assert was_measured
    with probing(result({1: 99.0})):
        assert measured(model, store) == (first, False)


def test_facts_of_a_busy_machine_serve_until_there_are_better_ones(
    model: Model, database: Database
) -> None:
    store = Facts(database)
    with probing(result({1: 30.0}, {1: 31.0}, spread=MAX_SPREAD + 0.01)):
        busy, _ = measured(model, store)
    assert not busy.is_sure
    assert busy.table.short_ms[1] == 30.0
    with probing():
        assert started(model, store) == (busy, [])
    with probing(result({1: 10.0})):
        quiet, was_measured = measured(model, store)
    assert was_measured
    assert quiet.is_sure
    assert quiet.table.short_ms[1] == 10.0
    with probing():
        assert measured(model, store) == (quiet, False)


@pytest.mark.parametrize(
    "other",
    [
        dataclasses.replace(MACHINE, num_threads=MACHINE.num_threads + 1),
        dataclasses.replace(MACHINE, cpu="Another CPU"),
        dataclasses.replace(MACHINE, features="none"),
    ],
    ids=["threads", "cpu", "features"],
)
def test_another_machine_measures_anew(model: Model, database: Database, other: Machine) -> None:
    store = Facts(database)
    with probing(result()):
        first, _ = measured(model, store)
    with probing(result({1: 1.5})):
        second, was_measured = measured(model, store, other)
    assert was_measured
    assert second.table.short_ms[1] == 1.5
    with probing():  # both are remembered now, each for its own machine
        assert measured(model, store) == (first, False)
        assert measured(model, store, other) == (second, False)


def test_other_weights_or_layouts_measure_anew(
    write_model: WriteModel, database: Database, tmp_path: Path
) -> None:
    store = Facts(database)
    path = tmp_path / "model.gguf"
    fast, plain = ModelOptions(use_extra_buffers=True), ModelOptions(use_extra_buffers=False)
    other_spec = dataclasses.replace(SMALL, seed=1)
    seen = set()
    for spec, options in ((SMALL, fast), (SMALL, plain), (other_spec, fast)):
        shutil.copy(write_model(spec), path)
        with Model(path, options) as model:
            seen.add(model_key(model, MACHINE))
            with probing(result()):
                assert measured(model, store)[1]
            with probing():
                assert not measured(model, store)[1]
    assert len(seen) == 3


def test_a_moved_file_is_the_same_model(
    write_model: WriteModel, database: Database, tmp_path: Path
) -> None:
    store = Facts(database)
    for name, is_new in (("one.gguf", True), ("two.gguf", False)):
        shutil.copy(write_model(SMALL), tmp_path / name)
        with Model(tmp_path / name) as model, probing(result()):
            assert measured(model, store)[1] == is_new


@pytest.mark.parametrize("garbage", ["no JSON", "[]", "{}", '{"setting": {"type_k": "f16"}}'])
def test_damaged_facts_are_measured_anew(model: Model, database: Database, garbage: str) -> None:
    store = Facts(database)
    with probing(result()):
        first, _ = measured(model, store)
        with database.connection as connection:
            connection.execute("UPDATE facts SET value = ?", (garbage,))
        again, was_measured = measured(model, store)
    assert was_measured
    assert dataclasses.replace(again, measured_in_s=first.measured_in_s) == first
    with probing():
        assert measured(model, store) == (again, False)


def test_a_store_that_cannot_remember_costs_a_measurement(model: Model) -> None:
    with open_in_memory() as closed:
        store = Facts(closed)
    for time_ms in (10.0, 20.0):
        with probing(result({1: time_ms}, {1: 30.0})):
            found, was_measured = measured(model, store)
        assert was_measured
        assert found.table.short_ms[1] == time_ms


@pytest.mark.parametrize("max_rows", [1, 2, 3, 8, 16])
def test_a_single_row_that_agrees_is_no_exactness(model: Model, max_rows: int) -> None:
    others = result(max_rows=1)
    with probing(others, result(max_rows=max_rows)):
        found = measure_model(model, MACHINE, lambda _line: None)
    if max_rows > 1:
        assert (found.exactness, found.max_rows) == ("identical", max_rows)
    else:
        assert (found.exactness, found.max_rows, found.margin) == ("near-ties", ROWS[-1], 0.5)
    assert found.tried == (
        ("bf16/f16", 1, 0.5, 12.0),
        ("bf16/f16", max_rows, 0.0 if max_rows == ROWS[-1] else 0.5, 12.0),
    )


def times(rows: Sequence[int]) -> st.SearchStrategy[dict[int, float]]:
    each = st.floats(0.01, 1000)
    return st.fixed_dictionaries({1: each}, optional=dict.fromkeys(rows, each))


@given(times(ROWS), times(ROWS))
def test_spikes_are_cut_off_and_nothing_else(
    model: Model, short_ms: dict[int, float], long_ms: dict[int, float]
) -> None:
    """Never above the measurement nor above two smaller passes; below both for no reason."""
    table = table_of(model, short_ms, long_ms)
    assert table.short_ms.keys() == short_ms.keys()
    assert table.long_ms.keys() == long_ms.keys()
    limits = {rows: min(ms, long_ms.get(rows, ms)) for rows, ms in short_ms.items()}
    for clean, raw in ((table.short_ms, limits), (table.long_ms, long_ms)):
        for rows, ms in clean.items():
            smaller = [count for count in clean if count < rows]
            pairs = [clean[a] + clean[b] for a in smaller for b in smaller if a + b >= rows]
            assert ms <= raw[rows]
            assert all(ms <= pair for pair in pairs)
            assert ms in (raw[rows], *pairs)
        assert clean[1] == raw[1]


@given(times(ROWS), times(ROWS), st.sampled_from(ROWS), st.floats(1, 100))
def test_one_spike_leaves_the_other_times_alone(
    model: Model,
    short_ms: dict[int, float],
    long_ms: dict[int, float],
    spiked: int,
    factor: float,
) -> None:
    """A time that was cut already can spike as high as it likes; those below it do not notice."""
    before = table_of(model, short_ms, long_ms)
    higher = {rows: ms * factor if rows == spiked else ms for rows, ms in long_ms.items()}
    after = table_of(model, short_ms, higher)
    for rows, ms in before.long_ms.items():
        if rows < spiked or (rows == spiked and ms < long_ms[rows]):
            assert after.long_ms[rows] == ms
        assert after.long_ms[rows] >= ms


def test_a_spike_of_the_default_model_is_cut(model: Model) -> None:
    """Sixteen rows that were interrupted cost at most a pass of twelve and one of four."""
    long_ms = {1: 53.0, 2: 87.0, 3: 91.0, 4: 95.0, 6: 111.0, 8: 125.0, 12: 134.0, 16: 900.0}
    table = table_of(model, {1: 50.0, 2: 300.0, 4: 90.0, 8: 120.0, 16: 148.0}, long_ms)
    assert dict(table.long_ms) == long_ms | {16: 134.0 + 95.0}
    assert dict(table.short_ms) == {1: 50.0, 2: 87.0, 4: 90.0, 8: 120.0, 16: 148.0}


def table_of(model: Model, short_ms: dict[int, float], long_ms: dict[int, float]) -> CostTable:
    with probing(result(short_ms, long_ms)):
        found = measure_model(model, MACHINE, lambda _line: None)
    # What is remembered is the same table.
    remembered = ModelFacts.from_json(json.loads(json.dumps(found.to_json())))
    assert remembered == found
    return found.table
