"""What was measured on this machine, remembered: soundness of the build, and facts of each model.

A fact is valid for one build of the native library on one machine with one number of threads; the
keys say so, and any change measures anew.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import asdict, dataclass
from typing import Any

from edgespec.errors import NativeLibraryError
from edgespec.files.fingerprint import file_fingerprint as file_fingerprint
from edgespec.llama import library
from edgespec.llama.model import Model
from edgespec.machine.curves import Kernels, scaled_table
from edgespec.machine.identity import Machine
from edgespec.machine.probe import (
    CANDIDATES,
    CONTEXTS,
    ROWS,
    USUAL,
    KVSetting,
    SettingResult,
    probe_model,
    probe_setting,
)
from edgespec.machine.soundness import Soundness, check_soundness
from edgespec.planning.cost import CostTable
from edgespec.protocols import FactStore
from edgespec.types import Exactness

SOUNDNESS, MODEL = "soundness", "model"

QUICK_S = 0.5
"""Most that is measured before an answer."""

MAX_SPREAD = 1.2
"""Facts are sure only if single rows took, in the median, at most this times the least."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """How one model is best run here, and what that costs.

    `tried` tells, of each KV setting that was probed, its name, invariant rows, margin and T(1) at
    the long context in milliseconds. `spread` tells how noisy the machine was (1: not at all). What
    `is_provisional` rests on the quick probe: rows that it had no time for are not used, and T(r)
    is a usual curve, or what passes made of that.
    """

    setting: KVSetting
    max_rows: int
    exactness: Exactness
    margin: float
    table: CostTable
    measured_in_s: float
    spread: float
    tried: tuple[tuple[str, int, float, float], ...]
    is_provisional: bool = False

    @property
    def is_sure(self) -> bool:
        """Whether all of it was measured, on a quiet machine."""
        return not self.is_provisional and self.spread <= MAX_SPREAD

    @property
    def is_proved(self) -> bool:
        """Whether no more rows can be proved: all are, or the next count differs."""
        return self.max_rows == ROWS[-1] or self.margin > 0

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> ModelFacts | None:
        """Read back `to_json`, or None if it is not of that form."""
        try:
            table = value["table"]
            return ModelFacts(
                setting=KVSetting(**value["setting"]),
                max_rows=int(value["max_rows"]),
                exactness=value["exactness"],
                margin=float(value["margin"]),
                table=CostTable(
                    int(table["short_context"]),
                    int(table["long_context"]),
                    {int(rows): float(ms) for rows, ms in table["short_ms"].items()},
                    {int(rows): float(ms) for rows, ms in table["long_ms"].items()},
                ),
                measured_in_s=float(value["measured_in_s"]),
                spread=float(value["spread"]),
                tried=tuple((str(n), int(r), float(m), float(t)) for n, r, m, t in value["tried"]),
                is_provisional=bool(value.get("is_provisional", False)),
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            return None

    def to_json(self) -> dict[str, Any]:
        """As JSON values, for remembering and for `doctor --json`."""
        return asdict(self)


class SoundnessCheck:
    """The library's self-check: remembered, or going on in child processes while models load.

    Leaving the block ends what still goes on.
    """

    def __init__(self, store: FactStore, machine: Machine) -> None:
        """Begin, if nothing is remembered of this build."""
        self._store = store
        self._key = f"{library.build_id()}|{machine.key}"
        self._num_threads = machine.num_threads
        remembered = store.get(SOUNDNESS, self._key)
        self._known = Soundness.from_json(remembered) if remembered else None
        self._found: Future[Soundness] = Future()
        self._stopped = threading.Event()
        if self._known is None:
            threading.Thread(target=self._check, name="self-check", daemon=True).start()

    @property
    def expected(self) -> bool:
        """Whether weights may be loaded with the extra layouts, as far as is known."""
        return self._known is None or self._known.use_extra_buffers

    def result(self) -> Soundness:
        """What was found, to be known before the first pass (about a second, the first time).

        Raises NativeLibraryError when the library cannot be used at all.
        """
        if self._known is None:
            found = self._found.result()
            if found.is_final:
                self._store.put(SOUNDNESS, self._key, found.to_json())
            self._known = found
        return self._known

    def __enter__(self) -> SoundnessCheck:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stopped.set()
        if self._known is None:
            wait([self._found])

    def _check(self) -> None:
        try:
            self._found.set_result(check_soundness(self._num_threads, self._stopped.is_set))
        except BaseException as error:  # noqa: BLE001 - raised where it is asked for
            self._found.set_exception(error)


def known_soundness(store: FactStore, machine: Machine) -> Soundness:
    """The remembered result of the library's self-check, or a new one (about a second).

    Raises NativeLibraryError when the library cannot be used at all.
    """
    with SoundnessCheck(store, machine) as check:
        return check.result()


def starting_facts(
    model: Model,
    store: FactStore,
    machine: Machine,
    kernels: Kernels,
    report: Callable[[str], None],
) -> ModelFacts:
    """The facts that an answer can begin with: remembered ones, or what half a second can prove.

    Provisional ones are improved for as long at each start, while there are rows to prove. Where
    the usual KV setting is not invariant, every setting is measured now (seconds), and one line
    tells so.
    """
    key = model_key(model, machine)
    facts = _remembered(store, key)
    if facts is not None and (not facts.is_provisional or facts.is_proved):
        return facts
    started = time.perf_counter()
    setting = CANDIDATES[0] if kernels == "gpu" else USUAL
    setting, proved = (facts.setting, facts.max_rows) if facts is not None else (setting, 1)
    try:
        found = probe_setting(model, setting, machine.num_threads, QUICK_S, proved)
    except NativeLibraryError:  # llama.cpp refuses the setting
        return known_model_facts(model, store, machine, report)
    if found.margin and found.max_rows == 1:
        return known_model_facts(model, store, machine, report)
    table = facts.table if facts is not None else None
    singles = found.short_ms[1], found.long_ms[1]
    facts = ModelFacts(
        setting=setting,
        max_rows=found.max_rows,
        exactness="identical",
        margin=found.margin,
        table=table or scaled_table(kernels, CONTEXTS, singles),
        measured_in_s=time.perf_counter() - started,
        spread=1.0,
        tried=((setting.name, found.max_rows, found.margin, singles[1]),),
        is_provisional=model.can_roll_back,
    )
    store.put(MODEL, key, facts.to_json())
    return facts


def known_model_facts(
    model: Model, store: FactStore, machine: Machine, report: Callable[[str], None]
) -> ModelFacts:
    """The remembered facts of an open model if they are sure, or new ones (two seconds or more).

    Those of a machine too busy to be timed are remembered, too, and measured again the next time.
    """
    key = model_key(model, machine)
    facts = _remembered(store, key)
    if facts is None or not facts.is_sure:
        report("measuring this model on this machine (once)")
        pinned = facts.setting if facts is not None and facts.exactness == "identical" else None
        facts = measure_model(model, machine, report, pinned=pinned)
        store.put(MODEL, key, facts.to_json())
    return facts


def _remembered(store: FactStore, key: str) -> ModelFacts | None:
    value = store.get(MODEL, key)
    return ModelFacts.from_json(value) if value else None


def measure_model(
    model: Model,
    machine: Machine,
    report: Callable[[str], None],
    pinned: KVSetting | None = None,
) -> ModelFacts:
    """Probe a model and decide how it is run; `pinned` is that of `probe_model`."""
    started = time.perf_counter()
    if not model.can_roll_back:
        results: tuple[SettingResult, ...]
        results = (probe_setting(model, CANDIDATES[0], machine.num_threads),)
        max_rows, exactness = 1, "identical"
    else:
        results = probe_model(model, machine.num_threads, report, pinned)
        invariant = results[-1].max_rows > 1
        max_rows = results[-1].max_rows if invariant else ROWS[-1]
        exactness = "identical" if invariant else "near-ties"
    chosen = results[-1]
    return ModelFacts(
        setting=chosen.setting,
        max_rows=max_rows,
        exactness="identical" if exactness == "identical" else "near-ties",
        margin=chosen.margin,
        table=table_of(chosen.short_ms, chosen.long_ms),
        measured_in_s=time.perf_counter() - started,
        spread=chosen.spread,
        tried=tuple((r.setting.name, r.max_rows, r.margin, r.long_ms[1]) for r in results),
    )


def model_key(model: Model, machine: Machine) -> str:
    """Names a model file, a build, a machine and how the weights were loaded.

    Workers come first: whoever looks for what the file does here finds nothing of theirs.
    """
    layouts = "extra" if model.options.use_extra_buffers else "plain"
    local = f"{file_fingerprint(model.path)}|{library.build_id()}|{machine.key}|{layouts}"
    return f"{model.placement_key}|{local}" if model.placement_key else local


def table_of(short_ms: Mapping[int, float], long_ms: Mapping[int, float]) -> CostTable:
    """Times by number of rows, without the spikes that a busy machine leaves in single ones.

    A longer context is never cheaper, and r rows never cost more than two passes that make r.
    """
    short = {rows: min(ms, long_ms.get(rows, ms)) for rows, ms in short_ms.items()}
    return CostTable(*CONTEXTS, _without_spikes(short), _without_spikes(long_ms))


def _without_spikes(times: Mapping[int, float]) -> dict[int, float]:
    smooth: dict[int, float] = {}
    for rows in sorted(times):
        pairs = [smooth[a] + smooth[b] for a in smooth for b in smooth if a <= b and a + b >= rows]
        smooth[rows] = min([times[rows], *pairs])
    return smooth
