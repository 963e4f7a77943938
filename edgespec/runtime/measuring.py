"""Idle work on the facts of a target: rows not proved yet, reading in pieces, T(r) as passes
taught it.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable

import numpy as np

from edgespec.machine.facts import MODEL, QUICK_S, ModelFacts, model_key, table_of
from edgespec.machine.probe import ROWS, SettingResult, probe_setting
from edgespec.machine.reading import ReadingTrial
from edgespec.pauses import Pause
from edgespec.planning.cost import CostModel, CostTable
from edgespec.protocols import FactStore
from edgespec.runtime.target import OpenTarget

READING = "reading"
_LEAST_CHANGE = 0.02
"""By how much a curve must have moved to be written down again."""

_Times = dict[int, list[float]]


class ProveRows:
    """Measures once more what a start measured in haste, or on a busy machine, step by step.

    Implements `edgespec.runtime.idle.IdleTask`.
    """

    name = "the target is measured"

    def __init__(
        self, target: OpenTarget, store: FactStore, on_proved: Callable[[int], None]
    ) -> None:
        """`on_proved` is told how many rows are proved with the KV setting that is in use."""
        self._target = target
        self._store = store
        self._on_proved = on_proved
        self._proved = 1
        self._seconds = QUICK_S
        self._times: tuple[_Times, _Times] = ({}, {})
        self.facts = target.facts  # as they are known now
        self.is_done = target.facts.is_sure or target.facts.exactness != "identical"

    def run(self, pause: Pause) -> bool:
        """Prove some more rows; see `IdleTask.run`."""
        if self.is_done:
            return False
        pause()
        model, machine, setting = (
            self._target.model,
            self._target.machine,
            self._target.facts.setting,
        )
        threads, proved = machine.num_threads, self._proved
        found = probe_setting(model, setting, threads, self._seconds, proved, pause=pause)
        for known, new in zip(self._times, (found.short, found.long), strict=True):
            for rows, times in new.items():
                known.setdefault(rows, []).extend(times)
        if found.max_rows == proved:  # a busy machine: it takes longer
            self._seconds *= 2
        self._proved = found.max_rows
        self.is_done = bool(found.margin) or found.max_rows == ROWS[-1]
        facts = self._facts()
        self.facts = facts
        self._store.put(MODEL, model_key(model, machine), facts.to_json())
        self._on_proved(facts.max_rows)
        return not self.is_done

    def _facts(self) -> ModelFacts:
        """What is known by now; T(r) as it was until everything is measured."""
        facts, (short, long) = self._target.facts, self._times
        max_rows = self._proved if self.is_done else max(self._proved, facts.max_rows)
        all_of_it = SettingResult(facts.setting, max_rows, 0.0, short, long)
        table = facts.table
        if self.is_done:
            table = table_of(all_of_it.short_ms, all_of_it.long_ms)
        return dataclasses.replace(
            facts,
            max_rows=max_rows,
            table=table,
            spread=statistics.median(short[1]) / min(short[1]),
            tried=((facts.setting.name, max_rows, facts.margin, all_of_it.long_ms[1]),),
            is_provisional=not self.is_done or max_rows == 1,  # then the next start searches
        )


class ProveReading:
    """Finds out, once, whether prompts may be read in pieces; implements `IdleTask`."""

    name = "reading in pieces is tried"

    def __init__(
        self, target: OpenTarget, store: FactStore, on_found: Callable[[bool], None]
    ) -> None:
        """`on_found` is told, at once where it is remembered."""
        self._store = store
        self._on_found = on_found
        setting = target.facts.setting
        self._trial = ReadingTrial(target.model, setting, target.machine.num_threads)
        self._key = f"{model_key(target.model, target.machine)}|{setting.name}"
        known = store.get(READING, self._key)
        self._is_done = known is not None
        if known is not None:
            on_found(known.get("is_alike") is True)

    def run(self, pause: Pause) -> bool:
        """Try it, a step at a time; see `IdleTask.run`."""
        if self._is_done:
            return False
        pause()
        found = self._trial.step(pause)
        if found is None:
            return True
        self._store.put(READING, self._key, {"is_alike": found})
        self._is_done = True
        self._on_found(found)
        return False


class CostKeeper:
    """Writes down what passes taught of T(r), so that the next start begins with it."""

    name = "the costs of passes are kept"

    def __init__(
        self, target: OpenTarget, store: FactStore, costs: CostModel, proving: ProveRows
    ) -> None:
        """What `proving` measures in this run is better, and left alone."""
        self._store = store
        self._costs = costs
        self._proving = proving
        self._was_sure = proving.is_done
        self._key = model_key(target.model, target.machine)
        self._kept = target.facts

    def run(self, _pause: Pause) -> bool:
        """Keep it if it changed much; see `IdleTask.run`."""
        self.keep()
        return False

    def keep(self) -> None:
        """The same, at the end."""
        if self._proving.is_done != self._was_sure:
            return
        before, table = self._kept.table, self._table()
        known = [np.array(list(curve.values())) for curve in (table.short_ms, table.long_ms)]
        past = CostModel(before, self._costs.max_rows)
        curves = [past.curve_ms(context) for context in (before.short_context, before.long_context)]
        change = max(
            float(np.abs(now / then - 1).max()) for now, then in zip(known, curves, strict=True)
        )
        if change > _LEAST_CHANGE:
            facts: ModelFacts = dataclasses.replace(self._kept, table=table)
            self._store.put(MODEL, self._key, facts.to_json())
            self._kept = facts

    def _table(self) -> CostTable:
        before = self._kept.table
        contexts = before.short_context, before.long_context
        short, long = (
            dict(enumerate(self._costs.curve_ms(context).tolist(), start=1)) for context in contexts
        )
        return CostTable(*contexts, short, long)
