"""What was measured on this machine, remembered: soundness of the build, and facts of each model.

A fact is valid for one build of the native library on one machine with one number of threads; the
keys say so, and any change measures anew.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgespec.llama import library
from edgespec.llama.model import Model
from edgespec.machine.identity import Machine
from edgespec.machine.probe import (
    NUM_LONG,
    NUM_SHORT,
    ROWS,
    KVSetting,
    SettingResult,
    probe_model,
    probe_single_rows,
)
from edgespec.machine.soundness import Soundness, check_soundness
from edgespec.planning.cost import CostTable
from edgespec.protocols import FactStore
from edgespec.types import Exactness

SOUNDNESS, MODEL = "soundness", "model"

MAX_SPREAD = 1.2
"""Facts are remembered only if single rows took, in the median, at most this times the least."""

_SAMPLE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """How one model is best run here, and what that costs.

    `tried` tells, of each KV setting that was probed, its name, invariant rows, margin and T(1) at
    the long context in milliseconds. `spread` tells how noisy the machine was (1: not at all).
    """

    setting: KVSetting
    max_rows: int
    exactness: Exactness
    margin: float
    table: CostTable
    measured_in_s: float
    spread: float
    tried: tuple[tuple[str, int, float, float], ...]

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
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            return None

    def to_json(self) -> dict[str, Any]:
        """As JSON values, for remembering and for `doctor --json`."""
        return asdict(self)


def known_soundness(store: FactStore, machine: Machine) -> Soundness:
    """The remembered result of the library's self-check, or a new one (about a second).

    Raises NativeLibraryError when the library cannot be used at all.
    """
    key = f"{library.build_id()}|{machine.key}"
    remembered = store.get(SOUNDNESS, key)
    soundness = Soundness.from_json(remembered) if remembered else None
    if soundness is None:
        soundness = check_soundness(machine.num_threads)
        if soundness.is_final:
            store.put(SOUNDNESS, key, soundness.to_json())
    return soundness


def known_model_facts(
    model: Model, store: FactStore, machine: Machine, report: Callable[[str], None]
) -> ModelFacts:
    """The remembered facts of an open model, or new ones (about two seconds).

    Facts from a machine too busy to be timed serve this run and are measured again the next time.
    """
    key = model_key(model, machine)
    remembered = store.get(MODEL, key)
    facts = ModelFacts.from_json(remembered) if remembered else None
    if facts is None:
        report("measuring this model on this machine (once)")
        facts = measure_model(model, machine, report)
        if facts.spread <= MAX_SPREAD:
            store.put(MODEL, key, facts.to_json())
    return facts


def measure_model(model: Model, machine: Machine, report: Callable[[str], None]) -> ModelFacts:
    """Probe a model and decide how it is run."""
    started = time.perf_counter()
    if not model.can_roll_back:
        results: tuple[SettingResult, ...] = (probe_single_rows(model, machine.num_threads),)
        max_rows, exactness = 1, "identical"
    else:
        results = probe_model(model, machine.num_threads, report)
        invariant = results[-1].max_rows > 1
        max_rows = results[-1].max_rows if invariant else ROWS[-1]
        exactness = "identical" if invariant else "near-ties"
    chosen = results[-1]
    return ModelFacts(
        setting=chosen.setting,
        max_rows=max_rows,
        exactness="identical" if exactness == "identical" else "near-ties",
        margin=chosen.margin,
        table=_table(chosen),
        measured_in_s=time.perf_counter() - started,
        spread=chosen.spread,
        tried=tuple((r.setting.name, r.max_rows, r.margin, r.long_ms[1]) for r in results),
    )


def model_key(model: Model, machine: Machine) -> str:
    """Names a model file, a build, a machine and how the weights were loaded."""
    layouts = "extra" if model.options.use_extra_buffers else "plain"
    return f"{file_fingerprint(model.path)}|{library.build_id()}|{machine.key}|{layouts}"


def file_fingerprint(path: Path) -> str:
    """A quick name for a file's content: its size and the hash of its start, middle and end."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for start in (0, size // 2, max(size - _SAMPLE_BYTES, 0)):
            file.seek(start)
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:32]


def _table(result: SettingResult) -> CostTable:
    """The times as a table, without the spikes that a busy machine leaves in single measurements.

    A longer context is never cheaper, and r rows never cost more than two passes that make r.
    """
    short_ms = {rows: min(ms, result.long_ms.get(rows, ms)) for rows, ms in result.short_ms.items()}
    return CostTable(
        NUM_SHORT, NUM_LONG, _without_spikes(short_ms), _without_spikes(result.long_ms)
    )


def _without_spikes(times: Mapping[int, float]) -> dict[int, float]:
    smooth: dict[int, float] = {}
    for rows in sorted(times):
        pairs = [smooth[a] + smooth[b] for a in smooth for b in smooth if a <= b and a + b >= rows]
        smooth[rows] = min([times[rows], *pairs])
    return smooth
