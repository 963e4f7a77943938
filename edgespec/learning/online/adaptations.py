"""What was learned, on disk: one file for each pair of a target's vocabulary and a drafter's file.

The file tells whose it is and holds arrays (`edgespec.files.sealed`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from edgespec.errors import StorageError
from edgespec.files.sealed import read_sealed, write_sealed
from edgespec.learning.online.datastore import DatastoreState
from edgespec.learning.online.gate import CANDIDATE
from edgespec.learning.online.learner import LearnerState
from edgespec.learning.online.trainer import TrainerState

SUFFIX = ".adaptation"
_MAGIC = b"edgespec adaptation 1\n"
_MOST_BYTES = 256 << 20
_MEMORY, _WAY = "memory_", "way"


@dataclass(frozen=True, slots=True)
class Pair:
    """Whom it serves: fingerprints of the target's vocabulary and of the drafter's file as it runs.

    The names are for people.
    """

    target: str
    drafter: str
    target_name: str = ""
    drafter_name: str = ""

    @property
    def file_name(self) -> str:
        """Where it is kept."""
        return f"{self.target[:16]}-{self.drafter[:16]}{SUFFIX}"

    def is_same(self, other: Pair) -> bool:
        """Whether what serves the one serves the other, whatever their names."""
        return (self.target, self.drafter) == (other.target, other.drafter)


@dataclass(frozen=True, slots=True)
class History:
    """What is told of a version: its number, and what it was learned from and judged by.

    `share_alone` and `share_served` are the shares of first guesses on the latest new text that
    were right, of the drafter alone and of what served.
    """

    version: int = 0
    num_answers: int = 0
    num_positions: int = 0
    share_alone: float = 0.0
    share_served: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Saved:
    """One version as it is kept."""

    pair: Pair
    history: History
    state: LearnerState


class AdaptationStore:
    """A folder of such files; made when the first is written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, pair: Pair) -> Path:
        """Where the version of `pair` is kept."""
        return self.folder / pair.file_name

    def load(self, pair: Pair) -> Saved | None:
        """The version of `pair`, None without one; raises StorageError if it cannot be used."""
        path = self.path(pair)
        if not path.exists():
            return None
        saved = read(path)
        if not saved.pair.is_same(pair):
            raise StorageError(f"{path} was learned for another pair of models", _REMEDY)
        return saved

    def save(self, saved: Saved) -> None:
        """Keep a version in place of the one before; raises StorageError."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise _not_written(self.folder, error) from error
        write(saved, self.path(saved.pair))

    def all(self) -> list[Path]:
        """Every file kept, whether or not it can be read."""
        return sorted(self.folder.glob(f"*{SUFFIX}"))

    def delete(self, paths: Iterable[Path]) -> None:
        """Forget files of this folder; raises StorageError."""
        for path in paths:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise StorageError(
                    f"cannot delete {path}: {error.strerror or error}", "delete it by hand"
                ) from error


def read(path: Path) -> Saved:
    """Read one file; raises StorageError with the reason if it is cut off, foreign or damaged."""
    about, arrays = read_sealed(path, _MAGIC, _MOST_BYTES, _REMEDY)
    try:
        pair = Pair(**{name: str(text) for name, text in about["pair"].items()})
        return Saved(pair, _history(about["history"]), _state(arrays))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(f"{path} is damaged ({error})", _REMEDY) from error


def write(saved: Saved, path: Path) -> None:
    """Write one file, whole or not at all; raises StorageError."""
    about = {"pair": asdict(saved.pair), "history": asdict(saved.history)}
    write_sealed(path, _MAGIC, about, _arrays(saved.state))


_REMEDY = "`edgespec adapt reset` starts anew"


def _history(value: Mapping[str, Any]) -> History:
    return History(
        version=int(value["version"]),
        num_answers=int(value["num_answers"]),
        num_positions=int(value["num_positions"]),
        share_alone=float(value["share_alone"]),
        share_served=float(value["share_served"]),
    )


def _arrays(state: LearnerState) -> dict[str, Any]:
    """All of a state by name, those of the memory with a prefix."""
    trainer = {field.name: getattr(state.trainer, field.name) for field in fields(TrainerState)}
    memory = {field.name: getattr(state.memory, field.name) for field in fields(DatastoreState)}
    prefixed = {f"{_MEMORY}{name}": array for name, array in memory.items()}
    return {**trainer, **prefixed, _WAY: state.way}


def _state(arrays: Mapping[str, Any]) -> LearnerState:
    """The arrays of a file, if they fit each other and hold numbers only; raises ValueError."""
    memory = {field.name: arrays[f"{_MEMORY}{field.name}"] for field in fields(DatastoreState)}
    trainer = {field.name: arrays[field.name] for field in fields(TrainerState)}
    way = int(arrays[_WAY])
    if way not in range(CANDIDATE):
        raise ValueError(f"{way} is no way to serve")
    return LearnerState(_trainer(trainer), _memory(memory), way)


def _memory(arrays: Mapping[str, Any]) -> DatastoreState:
    mean = np.ascontiguousarray(arrays["mean"], np.float32)
    down = np.ascontiguousarray(arrays["down"], np.float32)
    keys, said = arrays["keys"], arrays["said"].astype(np.int32)
    is_form = mean.ndim == said.ndim == 1 and down.ndim == keys.ndim == 2
    if not is_form or keys.dtype != np.int8 or down.shape[1] != len(mean):
        raise ValueError("its memory is not of the right form")
    if keys.shape != (len(said), len(down)) or (said < 0).any():
        raise ValueError("its memory does not fit itself")
    if not np.isfinite(mean).all() or not np.isfinite(down).all():
        raise ValueError("its memory holds what is no number")
    return DatastoreState(mean, down, keys, said)


def _trainer(arrays: dict[str, Any]) -> TrainerState:
    scale = float(arrays.pop("scale"))
    rows = arrays.pop("rows").astype(np.int32)
    parts = {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}
    rank, count = len(parts["down"]), len(rows)
    shapes = {"up": (count, rank), "bias": (count,), "down": parts["down"].shape[:2]}
    for name, shape in shapes.items():
        for array in (parts[name], parts[f"seen_{name}"]):
            if array.shape != shape or not np.isfinite(array).all():
                raise ValueError(f"its {name} is not of the right form")
    if not np.isfinite(scale) or (np.diff(rows) <= 0).any() or (rows[:1] < 0).any():
        raise ValueError("its rows are not in order")
    return TrainerState(scale, rows, **parts)


def _not_written(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"cannot write {path}: {error.strerror or error}", "free space or choose another folder"
    )
