"""What was trained: found for those whom it serves, told of, and carried to other machines."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from edgespec.errors import EdgeSpecError, StorageError, UsageError
from edgespec.gguf.file import replacing
from edgespec.learning.checkpoint import Checkpoint, read_checkpoint
from edgespec.learning.lora import About, merge, read_about, read_lora
from edgespec.learning.trainings import IDLE, TrainingStore
from edgespec.reports import human_bytes


def serving(store: TrainingStore, target: str, drafter: str, *, own: bool = True) -> Path | None:
    """The LoRA that serves a pair, by the fingerprints of vocabulary and whole file; None if none.

    The user's `own` if there is one and it may serve, else the one that ships. Raises StorageError
    if it cannot be used.
    """
    path = store.lora(target, drafter)
    if not own or not path.exists():
        path = store.shipped(target, drafter)
    if not path.exists():
        return None
    about = read_about(path)
    if (about.target, about.drafter) != (target, drafter):
        raise StorageError(f"{path} was trained for another pair of models", "train anew")
    return path


def merged_path(
    store: TrainingStore, lora: Path, running: Path, fingerprint: Callable[[Path], str]
) -> Path:
    """Where the sum of a LoRA and the form `running` is kept, whether or not it is there."""
    both = f"{fingerprint(lora)}|{fingerprint(running)}"
    return store.merged(lora, hashlib.sha256(both.encode()).hexdigest()[:16])


def merged(
    store: TrainingStore,
    lora: Path,
    whole: Path,
    running: Path,
    fingerprint: Callable[[Path], str],
    between: Callable[[], None] = lambda: None,
) -> Path:
    """`running`, a form of `whole`, with a LoRA added: made now if it is not there yet.

    Others of the same pair are deleted. `fingerprint` names a file's content; `between` is
    called before each matrix, and may raise. Raises StorageError, ModelFileError.
    """
    path = merged_path(store, lora, running, fingerprint)
    if not path.exists():
        store.ensure()
        merge(read_lora(lora)[0], whole, running, path, between)
    for other in store.merged_of(lora):
        if other != path:
            with contextlib.suppress(OSError):  # another process may be faster
                other.unlink()
    return path


@dataclass(frozen=True, slots=True)
class Trained:
    """One file: a LoRA that serves, or a training that can go on; why neither can be read."""

    path: Path
    known: About | Checkpoint | None
    problem: str = ""
    is_shipped: bool = False

    @staticmethod
    def at(
        path: Path, read: Callable[[Path], About | Checkpoint], *, is_shipped: bool = False
    ) -> Trained:
        """What a file tells."""
        try:
            return Trained(path, read(path), is_shipped=is_shipped)
        except EdgeSpecError as error:
            return Trained(path, None, str(error))

    @property
    def is_by_itself(self) -> bool:
        """Whether nobody asked for it to be learned."""
        known = self.known
        return self.path.suffix == IDLE if not isinstance(known, About) else known.by_itself

    def is_of(self, drafter: str) -> bool:
        """Whether a drafter, by name or fingerprint, was trained."""
        return self.known is not None and drafter in (self.known.drafter_name, self.known.drafter)

    def line(self) -> str:
        """One line for people."""
        size, known = human_bytes(self.path.stat().st_size), self.known
        if known is None:
            return f"{self.path.name}  {self.problem}"
        pair = f"{known.drafter_name} trained for {known.target_name}"
        if isinstance(known, Checkpoint) and self.is_by_itself:
            return f"{pair}: learns by itself, {known.progress.num_steps} steps so far, {size}"
        if isinstance(known, Checkpoint):
            return f"{pair}: can go on after {known.progress.num_steps} steps, {size}"
        return (
            f"{pair}: {known.num_steps} steps over {known.num_answers} answers,"
            f" {known.num_judged} guesses judged, right {known.share_alone:.3f} before and"
            f" {known.share_trained:.3f} as trained, {size}{self._origin}"
        )

    @property
    def _origin(self) -> str:
        if self.is_by_itself:
            return ", learned by itself"
        return ", comes with EdgeSpec" if self.is_shipped else ""

    def as_json(self) -> dict[str, object]:
        """The same for programs."""
        told: dict[str, object] = {"path": str(self.path), "bytes": self.path.stat().st_size}
        if self.known is None:
            return {**told, "problem": self.problem}
        if isinstance(self.known, About):
            return {**told, **asdict(self.known), "shipped": self.is_shipped}
        names = ("target", "drafter", "target_name", "drafter_name")
        pair = {name: getattr(self.known, name) for name in names}
        num_steps, by_itself = self.known.progress.num_steps, self.is_by_itself
        return {**told, **pair, "num_steps": num_steps, "by_itself": by_itself}


def all_trained(store: TrainingStore) -> list[Trained]:
    """Every LoRA that serves and every training that can go on, whether or not it can be read."""
    loras = [Trained.at(path, read_about) for path in store.loras()]
    shipped = store.shipped_loras()
    loras += [Trained.at(path, read_about, is_shipped=True) for path in shipped]
    under_way = [*store.trainings(), *store.idles()]
    return [*loras, *(Trained.at(path, read_checkpoint) for path in under_way)]


def set_aside(store: TrainingStore, lora: Path) -> None:
    """Keep a LoRA that was asked for, before one that is learned by itself takes its place.

    Raises StorageError.
    """
    with contextlib.suppress(StorageError):  # one that cannot be read serves nobody
        if not lora.exists() or read_about(lora).by_itself:
            return
    _copy(lora, store.asked(lora))


def take_back(store: TrainingStore, lora: Path) -> None:
    """Delete what was learned by itself; what it took the place of serves again.

    Raises StorageError.
    """
    store.delete([lora, *store.merged_of(lora)])
    with contextlib.suppress(FileNotFoundError):
        store.asked(lora).rename(lora)


def export_trained(store: TrainingStore, file: Path, drafter: str | None) -> None:
    """Copy the only LoRA of a drafter to `file`; raises UsageError, StorageError."""
    found = [Trained.at(path, read_about) for path in store.loras()]
    if drafter is not None:
        found = [entry for entry in found if entry.is_of(drafter)]
    if not found:
        problem = "no drafter was trained" if drafter is None else f"{drafter} was not trained"
        raise UsageError(problem, "`edgespec learn status` shows which were")
    if len(found) > 1:
        raise UsageError(f"{len(found)} trainings serve", "say of which drafter with --drafter")
    read_lora(found[0].path)  # a damaged one is not carried on
    _copy(found[0].path, file)


def import_trained(store: TrainingStore, file: Path, *, replace: bool) -> Trained:
    """Take in a LoRA that was exported; raises UsageError, StorageError."""
    _lora, about = read_lora(file)
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
