"""What training leaves on disk, for each pair of a target's vocabulary and a drafter's whole file.

PAIR.lora.gguf          what serves: a LoRA
PAIR-FORM.merged.gguf   the same, added to the form of the drafter that runs; made when needed
PAIR.training           a training under way, or ended, that can go on
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from edgespec.errors import StorageError

LORA, MERGED, TRAINING = ".lora.gguf", ".merged.gguf", ".training"


class TrainingStore:
    """A folder of such files, which may hold others; made when the first is written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def lora(self, target: str, drafter: str) -> Path:
        """Where the LoRA of a pair is kept, by the fingerprints of vocabulary and file."""
        return self.folder / f"{_pair(target, drafter)}{LORA}"

    def training(self, target: str, drafter: str) -> Path:
        """Where a training of a pair is kept."""
        return self.folder / f"{_pair(target, drafter)}{TRAINING}"

    def ensure(self) -> None:
        """Make the folder, its owner's only; raises StorageError."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StorageError(
                f"cannot create {self.folder}: {error.strerror or error}",
                "free space there or set EDGESPEC_HOME to a folder you can write to",
            ) from error

    def merged(self, lora: Path, digest: str) -> Path:
        """Where a LoRA is kept that was added to a form of the drafter, which `digest` names."""
        return self.folder / f"{lora.name.removesuffix(LORA)}-{digest}{MERGED}"

    def merged_of(self, lora: Path) -> list[Path]:
        """Every file with this LoRA, or one before it of the same pair, added."""
        return sorted(self.folder.glob(f"{lora.name.removesuffix(LORA)}-*{MERGED}"))

    def loras(self) -> list[Path]:
        """Every LoRA kept, whether or not it can be read."""
        return sorted(self.folder.glob(f"*{LORA}"))

    def trainings(self) -> list[Path]:
        """Every training that can go on."""
        return sorted(self.folder.glob(f"*{TRAINING}"))

    def all(self) -> list[Path]:
        """Every file of training."""
        return sorted([*self.loras(), *self.trainings(), *self.folder.glob(f"*{MERGED}")])

    def of_same_pair(self, paths: Iterable[Path]) -> list[Path]:
        """Every file of training of the pairs that `paths` belong to."""
        pairs = {path.name[:_PAIR] for path in paths}
        return [path for path in self.all() if path.name[:_PAIR] in pairs]

    def delete(self, paths: Iterable[Path]) -> None:
        """Forget files of this folder, and what killed processes left; raises StorageError."""
        for path in (*paths, *self._left()):
            try:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
            except OSError as error:
                raise StorageError(
                    f"cannot delete {path}: {error.strerror or error}", "delete it by hand"
                ) from error

    def scratch(self, lora: Path) -> tempfile.TemporaryDirectory[str]:
        """A folder for files that may become this LoRA."""
        return tempfile.TemporaryDirectory(prefix=f".{lora.name}.", dir=self.folder)

    def _left(self) -> list[Path]:
        """Files and folders that were to be one of these; those of a training under way, too."""
        kinds = (f".*{LORA}.*", f".*{MERGED}.*", f".*{TRAINING}.*")
        return [path for kind in kinds for path in self.folder.glob(kind)]


_PAIR = 33
"""Letters of a pair's name: two halves of 16 and a dash."""


def _pair(target: str, drafter: str) -> str:
    return f"{target[:16]}-{drafter[:16]}"
