"""Idle work on the facts of a target: rows not proved yet, and T(r) as passes taught it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from edgespec.machine.facts import MODEL, ModelFacts, measure_model, model_key
from edgespec.machine.probe import KVSetting, SettingResult
from edgespec.pauses import Pause
from edgespec.planning.cost import CostModel, CostTable
from edgespec.protocols import FactStore
from edgespec.runtime.target import OpenTarget

_LEAST_CHANGE = 0.02
"""By how much a curve must have moved to be written down again."""


class ProveRows:
    """Measures once more what a start measured in haste, or on a busy machine."""

    name = "the target is measured"

    def __init__(
        self, target: OpenTarget, store: FactStore, on_proved: Callable[[int], None]
    ) -> None:
        """`on_proved` is told how many rows are proved with the KV setting that is in use."""
        self._target = target
        self._store = store
        self._on_proved = on_proved
        self._known: dict[KVSetting, SettingResult] = {}
        self.is_done = target.facts.is_sure

    def run(self, pause: Pause) -> bool:
        """Measure on where it was ended; see `IdleTask.run`."""
        if self.is_done:
            return False
        target = self._target
        pause()
        facts = measure_model(
            target.model,
            target.machine,
            lambda _line: None,
            pause,
            self._known,
            target.facts.setting,
        )
        self._store.put(MODEL, model_key(target.model, target.machine), facts.to_json())
        self.is_done = True
        if facts.setting == target.facts.setting:
            self._on_proved(facts.max_rows)
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
