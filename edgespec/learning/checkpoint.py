"""A training under way, on disk: the pupil's whole state, and how far it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgespec.errors import StorageError
from edgespec.files.sealed import read_sealed, write_sealed
from edgespec.learning.lora import Lora
from edgespec.learning.training import Arrays, Judged, Progress, TuningOptions

_MAGIC = b"edgespec training 1\n"
_MOST_BYTES = 4 << 30
_REMEDY = "train anew, without --resume"
_BEST, _STATE = "best ", "state "
_NAMES = ("target", "drafter", "target_name", "drafter_name", "guide")
_NUMBERS = ("num_steps", "num_lessons", "num_since_best", "loss")


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
    progress, best = checkpoint.progress, checkpoint.progress.best_lora
    arrays = _prefixed(_STATE, checkpoint.state)
    about = {
        **{name: getattr(checkpoint, name) for name in _NAMES},
        **{name: getattr(progress, name) for name in _NUMBERS},
        "options": asdict(checkpoint.options),
        "alone": None if progress.alone is None else asdict(progress.alone),
        "best": None if progress.best is None else asdict(progress.best),
        "best_alpha": None if best is None else best.alpha,
    }
    if best is not None:
        arrays |= _prefixed(_BEST, best.factors())
    write_sealed(path, _MAGIC, about, arrays)


def read_checkpoint(path: Path) -> Checkpoint:
    """Take a training up again; raises StorageError if it is cut off, foreign or damaged."""
    about, arrays = read_sealed(path, _MAGIC, _MOST_BYTES, _REMEDY)
    try:
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise ValueError("it holds what is no number")
        alone, best = (about[name] and Judged(**about[name]) for name in ("alone", "best"))
        alpha = about["best_alpha"]
        lora = None if alpha is None else Lora.of(float(alpha), _with(_BEST, arrays))
        numbers = {name: about[name] for name in _NUMBERS}
        return Checkpoint(
            **{name: str(about[name]) for name in _NAMES},
            options=TuningOptions(**about["options"]),
            progress=Progress(**numbers, alone=alone, best=best, best_lora=lora),
            state=_with(_STATE, arrays),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{path} is damaged ({error})", _REMEDY) from error


def _prefixed(prefix: str, arrays: Arrays) -> dict[str, Any]:
    return {f"{prefix}{name}": array for name, array in arrays.items()}


def _with(prefix: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
