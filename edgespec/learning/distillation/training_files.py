"""What `edgespec adapt` tells of trainings, and how they are carried from machine to machine."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from edgespec.errors import EdgeSpecError, UsageError
from edgespec.gguf.file import replacing
from edgespec.learning.distillation.checkpoint import Checkpoint, read_checkpoint
from edgespec.learning.distillation.lora_file import About, read_about, read_lora
from edgespec.learning.distillation.trainings import TrainingStore
from edgespec.reports import human_bytes


@dataclass(frozen=True, slots=True)
class Trained:
    """One file: a LoRA that serves (`about`), or a training that can go on (`checkpoint`).

    `problem` tells why it cannot be read.
    """

    path: Path
    about: About | None = None
    checkpoint: Checkpoint | None = None
    problem: str = ""

    def is_of(self, drafter: str) -> bool:
        """Whether a drafter, by name or fingerprint, was trained."""
        known = self.about or self.checkpoint
        return known is not None and drafter in (known.drafter_name, known.drafter)

    def line(self) -> str:
        """One line for people."""
        size = human_bytes(self.path.stat().st_size)
        known = self.about or self.checkpoint
        if known is None:
            return f"{self.path.name}  {self.problem}"
        pair = f"{known.drafter_name} trained for {known.target_name}"
        if isinstance(known, Checkpoint):
            return f"{pair}: can go on after {known.progress.num_steps} steps, {size}"
        return (
            f"{pair}: {known.num_steps} steps over {known.num_answers} answers,"
            f" {known.num_judged} guesses judged, right {known.share_alone:.3f} alone and"
            f" {known.share_trained:.3f} as trained, {size}"
        )

    def as_json(self) -> dict[str, object]:
        """The same for programs."""
        told: dict[str, object] = {"path": str(self.path), "bytes": self.path.stat().st_size}
        if self.about is not None:
            return {**told, **asdict(self.about)}
        if self.checkpoint is None:
            return {**told, "problem": self.problem}
        names = ("target", "drafter", "target_name", "drafter_name")
        pair = {name: getattr(self.checkpoint, name) for name in names}
        return {**told, **pair, "num_steps": self.checkpoint.progress.num_steps}


def all_trained(store: TrainingStore) -> list[Trained]:
    """Every LoRA and every training that can go on, whether or not it can be read."""
    return [*map(_lora, store.loras()), *map(_training, store.trainings())]


def export_trained(store: TrainingStore, file: Path, drafter: str | None) -> None:
    """Copy the only LoRA of a drafter to `file`; raises UsageError, StorageError."""
    found = [
        entry for entry in map(_lora, store.loras()) if drafter is None or entry.is_of(drafter)
    ]
    if not found:
        problem = "no drafter was trained" if drafter is None else f"{drafter} was not trained"
        raise UsageError(problem, "`edgespec adapt status` shows which were")
    if len(found) > 1:
        raise UsageError(f"{len(found)} trainings serve", "say of which drafter with --drafter")
    read_lora(found[0].path)  # a damaged one is not carried on
    _copy(found[0].path, file)


def import_trained(store: TrainingStore, file: Path, *, replace: bool) -> Trained:
    """Take in a LoRA that was exported; raises UsageError, StorageError."""
    _lora_of_file, about = read_lora(file)
    path = store.lora(about.target, about.drafter)
    if path.exists() and not replace:
        raise UsageError(
            f"{about.drafter_name} was trained for {about.target_name} already",
            "add --yes to replace that",
        )
    store.ensure()
    _copy(file, path)
    return Trained(path, about)


def _copy(source: Path, destination: Path) -> None:
    with replacing(destination, source.stat().st_size) as scratch:
        shutil.copyfile(source, scratch)


def _lora(path: Path) -> Trained:
    try:
        return Trained(path, read_about(path))
    except EdgeSpecError as error:
        return Trained(path, problem=str(error))


def _training(path: Path) -> Trained:
    try:
        return Trained(path, checkpoint=read_checkpoint(path))
    except EdgeSpecError as error:
        return Trained(path, problem=str(error))
