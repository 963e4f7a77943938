"""Measure online adaptation: record once with the models, then replay orders and options.

    PYTHONPATH=scripts python scripts/measure_adaptation.py answers FOLDER TARGET SUITE...
    PYTHONPATH=scripts python scripts/measure_adaptation.py readings FOLDER TARGET WHOLE RUNNING
    PYTHONPATH=scripts python scripts/measure_adaptation.py replay FOLDER NAME [OPTION=VALUE...]
    PYTHONPATH=scripts python scripts/measure_adaptation.py curve FOLDER NAME OUT.svg

`answers` lets the target answer all turns of the suites greedily, with its distributions; run again
it goes on. `readings` lets one drafter read them (WHOLE has the vocabulary, RUNNING may be
trimmed). `replay` plays them in three orders through the product's own learner, nothing else
drafting, and prints a line for each 25 turns; NAME is that of WHOLE. Options are fields of
LearnerOptions, TrainingOptions and LossWeights, or order=N for one order only. With the default
options each order is kept in FOLDER; `curve` prints and draws the mean of those.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from adaptation.answers import AnswerRecorder
from adaptation.plot import learning_curve
from adaptation.prompts import TurnPrompt, turn_prompts
from adaptation.readings import DrafterRecorder
from adaptation.replay import HALVES, Planner, Recorded, Speed, TurnResult, replay

from edgespec.forms.weighing import USUAL_PASS_MS
from edgespec.learning.online.learner import Learner, LearnerOptions
from edgespec.learning.online.loss import LossWeights
from edgespec.learning.online.trainer import TrainingOptions
from edgespec.llama.model import Model, ModelOptions
from edgespec.machine.identity import this_machine

TOKEN_MS = 4.5
"""A drafted token beside the target, bridge included."""

SERVED_MS = 0.14
"""What correction and neighbours add to each drafted token."""

WINDOW = 25
_PART_S = 420.0


def record_answers(folder: Path, target: Path, suites: Sequence[Path]) -> None:
    """Answer what has no answer yet, for at most some minutes."""
    turns = turn_prompts(list(suites))
    listed = [dataclasses.asdict(turn) for turn in turns]
    (folder / "turns.json").write_text(json.dumps(listed), encoding="utf-8")
    with Model(target) as model:
        recorder = AnswerRecorder(model, this_machine().num_threads, folder)
        done = recorder.record(turns, time.monotonic() + _PART_S)
    print("done" if done else "run it again to go on")


def record_readings(folder: Path, target: Path, whole: Path, running: Path) -> None:
    """Let a drafter read every answer."""
    turns = _turns(folder)
    with Model(target, ModelOptions(vocabulary_only=True)) as model:
        recorder = DrafterRecorder(running, whole, model, this_machine().num_threads)
        head = folder / f"head-{whole.stem}.npz"
        np.savez(head, kept=recorder.kept, direct=recorder.direct_rows())
        for index in range(len(turns)):
            recorder.record(turns, index, folder, whole.stem)


def measure(folder: Path, name: str, values: Mapping[str, str]) -> None:
    """Replay and print."""
    options = _options(values)
    recorded = Recorded(folder, name, [turn.kind for turn in _turns(folder)])
    orders = [int(values["order"])] if "order" in values else range(len(HALVES))
    runs = []
    for number in orders:
        learner = Learner(recorded.num_rows, recorded.num_embedding, options)
        planners = (
            Planner(USUAL_PASS_MS, TOKEN_MS),
            Planner(USUAL_PASS_MS, TOKEN_MS + SERVED_MS),
        )
        runs.append(list(replay(recorded, recorded.order(number), learner, planners)))
        if not set(values) - {"order"}:
            kept = [dataclasses.asdict(result) for result in runs[-1]]
            _kept_run(folder, name, number).write_text(json.dumps(kept), encoding="utf-8")
    print(f"{name} {' '.join(f'{key}={value}' for key, value in values.items())}")
    print_curve(runs)


def draw_curve(folder: Path, name: str, out: Path) -> None:
    """Print and draw the mean of the orders that were replayed with the default options."""
    runs = []
    for number in range(len(HALVES)):
        path = _kept_run(folder, name, number)
        if path.exists():
            runs.append([_read_result(kept) for kept in json.loads(path.read_text("utf-8"))])
    if not runs:
        sys.exit(f"nothing was replayed of {name} with the default options")
    print(f"{name}, mean of {len(runs)} orders")
    print_curve(runs)
    ends = list(range(WINDOW, len(runs[0]) + 1, WINDOW))
    rows = np.mean([[_summary(run[end - WINDOW : end]) for end in ends] for run in runs], axis=0)
    lines = {"alone": rows[:, 0].tolist(), "served": rows[:, 1].tolist()}
    title = f"{name}: first guesses right, by turn; other kinds of prompts from the middle on"
    out.write_text(learning_curve(title, ends, lines), encoding="utf-8")


def _kept_run(folder: Path, name: str, number: int) -> Path:
    return folder / f"run-{name}-{number}.json"


def _read_result(kept: Mapping[str, Any]) -> TurnResult:
    speeds = {name: Speed(**kept[name]) for name in ("alone_speed", "served_speed")}
    return TurnResult(**{**kept, **speeds})


def print_curve(runs: Sequence[Sequence[TurnResult]]) -> None:
    """Means over the runs, for each WINDOW turns and for all, and what the gate did."""
    print("turns      first guesses right        tokens a pass         speed-up")
    print("           alone  served  gain        alone  served         alone  served")
    size = len(runs[0])
    spans = [(start, min(start + WINDOW, size)) for start in range(0, size, WINDOW)]
    for start, end in [*spans, (0, size // 2), (size // 2, size), (0, size)]:
        rows = [_summary(run[start:end]) for run in runs]
        alone, served, *speeds = np.mean(rows, axis=0)
        numbers = "  ".join(f"{value:5.3f}" for value in speeds)
        print(f"{start + 1:3}-{end:<5} {alone:7.3f} {served:7.3f} {served - alone:+.4f}  {numbers}")
    worst = min(_gain(run[at : at + 50]) for run in runs for at in range(max(size - 49, 1)))
    verdicts = [sum(r.verdict == v for run in runs for r in run) for v in _VERDICTS]
    ways = [sum(r.way == way for run in runs for r in run) for way in range(len(_WAYS))]
    print(f"worst 50 turns {worst:+.4f}; {dict(zip(_VERDICTS, verdicts, strict=True))}")
    print(f"turns served: {dict(zip(_WAYS, ways, strict=True))}", flush=True)
    for kind in sorted({result.kind for result in runs[0]}):
        of_kind = [result for run in runs for result in run if result.kind == kind]
        alone, served, *_ = _summary(of_kind)
        print(f"{kind:12} {alone:.3f} {served:.3f} {served - alone:+.4f}", flush=True)


_VERDICTS = ("promoted", "refused", "harmful")
_WAYS = ("alone", "corrected", "neighbours", "both")


def _summary(results: Sequence[TurnResult]) -> tuple[float, ...]:
    first = sum(result.num_first for result in results)
    alone = _total([result.alone_speed for result in results])
    served = _total([result.served_speed for result in results])
    return (
        sum(result.alone for result in results) / first,
        sum(result.served for result in results) / first,
        alone.num_tokens / alone.num_passes,
        served.num_tokens / served.num_passes,
        alone.plain_ms / alone.drafted_ms,
        served.plain_ms / served.drafted_ms,
    )


def _total(speeds: Sequence[Speed]) -> Speed:
    return Speed(
        sum(speed.num_tokens for speed in speeds),
        sum(speed.num_passes for speed in speeds),
        sum(speed.drafted_ms for speed in speeds),
        sum(speed.plain_ms for speed in speeds),
    )


def _gain(results: Sequence[TurnResult]) -> float:
    first = sum(result.num_first for result in results)
    return sum(result.served - result.alone for result in results) / first


def _options(values: Mapping[str, str]) -> LearnerOptions:
    """Options with `values` in place of the defaults, wherever a field has that name."""

    def taken(kind: type) -> dict[str, object]:
        fields = {field.name: field for field in dataclasses.fields(kind)}
        return {name: json.loads(value) for name, value in values.items() if name in fields}

    weights = LossWeights(**taken(LossWeights))  # type: ignore[arg-type]
    training = TrainingOptions(**taken(TrainingOptions), weights=weights)  # type: ignore[arg-type]
    return LearnerOptions(**taken(LearnerOptions), training=training)  # type: ignore[arg-type]


def _turns(folder: Path) -> list[TurnPrompt]:
    listed = json.loads((folder / "turns.json").read_text(encoding="utf-8"))
    return [TurnPrompt(**turn) for turn in listed]


def main() -> None:
    """Do what the first argument says."""
    command, folder, *rest = sys.argv[1:]
    if command == "answers":
        record_answers(Path(folder), Path(rest[0]), [Path(suite) for suite in rest[1:]])
    elif command == "readings":
        record_readings(Path(folder), *map(Path, rest))
    elif command == "replay":
        measure(Path(folder), rest[0], dict(value.split("=", 1) for value in rest[1:]))
    elif command == "curve":
        draw_curve(Path(folder), rest[0], Path(rest[1]))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
