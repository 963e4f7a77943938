"""Half a second of proof: what was proved is used, and it goes on later."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from rigs import SMALL, OpenModel
from tiny_models import Architecture, TinySpec

from edgespec.cache.database import open_in_memory
from edgespec.cache.facts import Facts
from edgespec.machine import facts as facts_module
from edgespec.machine.facts import known_model_facts, starting_facts
from edgespec.machine.identity import this_machine
from edgespec.machine.probe import ROWS, USUAL, probe_setting

MACHINE = dataclasses.replace(this_machine(), num_threads=1)
AMPLE_S = 1000.0


def test_it_ends_in_time_and_goes_on_from_there(open_model: OpenModel) -> None:
    model = open_model(SMALL)
    proved, seen = 1, []
    while proved < ROWS[-1]:
        seconds = itertools.count()  # one for each look at the clock
        found = probe_setting(model, USUAL, 1, 4.5, proved, clock=seconds.__next__)
        assert not found.margin
        assert proved < found.max_rows
        proved = found.max_rows
        seen.append(proved)
    assert len(seen) > 2
    last = probe_setting(model, USUAL, 1, 0.0, 4, clock=itertools.count().__next__)
    assert last.max_rows == 4


def test_without_any_time_nothing_is_claimed(open_model: OpenModel) -> None:
    found = probe_setting(open_model(SMALL), USUAL, 1, 0.0)
    assert (found.max_rows, found.margin) == (1, 0.0)
    assert found.short_ms == found.long_ms


def test_an_answer_begins_with_what_was_proved(open_model: OpenModel) -> None:
    model, lines = open_model(SMALL), list[str]()
    with open_in_memory() as database:
        store = Facts(database)
        first = starting_facts(model, store, MACHINE, "own", lines.append)
        assert (first.setting, first.exactness, first.is_provisional) == (USUAL, "identical", True)
        assert 1 <= first.max_rows <= ROWS[-1]
        second = starting_facts(model, store, MACHINE, "own", lines.append)
        assert second.max_rows >= first.max_rows
        assert second.table == first.table, "what passes taught is not forgotten"
        assert lines == []
        whole = known_model_facts(model, store, MACHINE, lines.append)
        assert not whole.is_provisional
        assert lines, "in the foreground it is told"
        assert starting_facts(model, store, MACHINE, "own", lines.append) == whole


def test_where_the_usual_setting_fails_all_are_searched_and_it_is_told(
    open_model: OpenModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, lines = open_model(TinySpec(quantization="F32", num_layers=1)), list[str]()
    monkeypatch.setattr(facts_module, "QUICK_S", AMPLE_S)
    with open_in_memory() as database:
        found = starting_facts(model, Facts(database), MACHINE, "own", lines.append)
    whole = probe_setting(model, USUAL, 1)
    assert found.is_provisional == (whole.max_rows > 1)
    assert bool(lines) == (whole.max_rows == 1)


def test_what_is_proved_to_the_end_is_not_looked_at_again(
    open_model: OpenModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor what differs from the next count on; T(r) is still to be measured, in idle time."""
    monkeypatch.setattr(facts_module, "QUICK_S", AMPLE_S)
    with open_in_memory() as database:
        for spec in (SMALL, TinySpec(quantization="F16", num_layers=1)):
            model, store = open_model(spec), Facts(database)
            first = starting_facts(model, store, MACHINE, "own", lambda _line: None)
            if first.is_provisional:
                assert first.is_proved
                with monkeypatch.context() as patch:
                    patch.delattr(facts_module, "probe_setting")
                    assert starting_facts(model, store, MACHINE, "own", pytest.fail) == first


@pytest.mark.parametrize("architecture", ["mamba", "lfm2"])
def test_a_model_that_cannot_forget_gets_one_row(
    open_model: OpenModel, architecture: Architecture
) -> None:
    model = open_model(dataclasses.replace(SMALL, architecture=architecture))
    with open_in_memory() as database:
        found = starting_facts(model, Facts(database), MACHINE, "own", lambda _line: None)
    assert (found.max_rows, found.exactness, found.is_provisional) == (1, "identical", False)
