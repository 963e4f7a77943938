"""A training under way, on disk: the pupil's whole state, and how far it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgespec.errors import StorageError
from edgespec.files.sealed import read_sealed, write_sealed
from edgespec.learning.distillation.lora import Lora, LowRank
from edgespec.learning.distillation.training import Arrays, Judged, Progress, TuningOptions

_MAGIC = b"edgespec training 1\n"
_MOST_BYTES = 4 << 30
_REMEDY = "train anew, without --resume"
_BEST, _STATE = "best ", "state "
_DOWN, _UP = ".lora_a", ".lora_b"


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """Where a training goes on: of which pair, with which options, and everything it knows.

    The pair's names are for people. `guide` names the lessons that its figures are of.
    """

    target: str
    drafter: str
    target_name: str
    drafter_name: str
    options: TuningOptions
    progress: Progress
    state: Arrays
    guide: str


def write_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Keep a training, whole or not at all; raises StorageError."""
    progress = checkpoint.progress
    arrays = {f"{_STATE}{name}": array for name, array in checkpoint.state.items()}
    best = progress.best_lora
    for name, change in ({} if best is None else best.changes).items():
        arrays[f"{_BEST}{name}{_DOWN}"] = change.down
        arrays[f"{_BEST}{name}{_UP}"] = change.up
    about = {
        "target": checkpoint.target,
        "drafter": checkpoint.drafter,
        "target_name": checkpoint.target_name,
        "drafter_name": checkpoint.drafter_name,
        "options": asdict(checkpoint.options),
        "guide": checkpoint.guide,
        "num_steps": progress.num_steps,
        "num_lessons": progress.num_lessons,
        "num_since_best": progress.num_since_best,
        "loss": progress.loss,
        "alone": None if progress.alone is None else asdict(progress.alone),
        "best": None if progress.best is None else asdict(progress.best),
        "best_alpha": None if best is None else best.alpha,
    }
    write_sealed(path, _MAGIC, about, arrays)


def read_checkpoint(path: Path) -> Checkpoint:
    """Take a training up again; raises StorageError if it is cut off, foreign or damaged."""
    about, arrays = read_sealed(path, _MAGIC, _MOST_BYTES, _REMEDY)
    try:
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise ValueError("it holds what is no number")
        state = {
            name.removeprefix(_STATE): array
            for name, array in arrays.items()
            if name.startswith(_STATE)
        }
        return Checkpoint(
            str(about["target"]),
            str(about["drafter"]),
            str(about["target_name"]),
            str(about["drafter_name"]),
            TuningOptions(**about["options"]),
            Progress(
                int(about["num_steps"]),
                int(about["num_lessons"]),
                int(about["num_since_best"]),
                float(about["loss"]),
                _judged(about["alone"]),
                _judged(about["best"]),
                _best(about["best_alpha"], arrays),
            ),
            state,
            str(about["guide"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{path} is damaged ({error})", _REMEDY) from error


def _judged(value: Mapping[str, Any] | None) -> Judged | None:
    if value is None:
        return None
    return Judged(int(value["num_tokens"]), int(value["num_right"]), float(value["nll"]))


def _best(alpha: float | None, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Lora | None:
    if alpha is None:
        return None
    names = [
        name.removeprefix(_BEST).removesuffix(_DOWN)
        for name in arrays
        if name.startswith(_BEST) and name.endswith(_DOWN)
    ]
    changes = {
        name: LowRank(
            *(np.array(arrays[f"{_BEST}{name}{part}"], np.float32) for part in (_DOWN, _UP))
        )
        for name in names
    }
    if not all(change.is_sound for change in changes.values()):
        raise ValueError("its changes are not of the right form")
    return Lora(float(alpha), changes)
