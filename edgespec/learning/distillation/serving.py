"""What was trained, found for those whom it serves: a LoRA, and its sum with the form that runs."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path

from edgespec.errors import StorageError
from edgespec.learning.distillation.lora_file import About, read_about, read_lora
from edgespec.learning.distillation.lora_merge import merge
from edgespec.learning.distillation.trainings import TrainingStore


def serving(store: TrainingStore, target: str, drafter: str) -> tuple[Path, About] | None:
    """The LoRA that serves a pair, by the fingerprints of vocabulary and whole file; None if none.

    Raises StorageError if it cannot be used.
    """
    path = store.lora(target, drafter)
    if not path.exists():
        return None
    about = read_about(path)
    if (about.target, about.drafter) != (target, drafter):
        raise StorageError(f"{path} was trained for another pair of models", "train anew")
    return path, about


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
        changes, _about = read_lora(lora)
        merge(changes, whole, running, path, between)
    for other in store.merged_of(lora):
        if other != path:
            with contextlib.suppress(OSError):  # another process may be faster
                other.unlink()
    return path
