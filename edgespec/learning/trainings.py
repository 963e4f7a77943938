"""What training leaves on disk, for each pair of a target's vocabulary and a drafter's whole file.

PAIR.lora.gguf          what serves: a LoRA
PAIR-FORM.merged.gguf   the same, added to the form of the drafter that runs; made when needed
PAIR.training           a training under way, or ended, that can go on
PAIR.idle               one that nobody asked for, under way, which goes on by itself
PAIR.asked.gguf         the LoRA that was asked for, where another learned by itself serves now
PAIR.claim              one process learns for this pair in idle time (`edgespec.learning.claim`)

Of the default pair a LoRA ships with EdgeSpec, in `shipped/`, and serves until there is one of the
user's own.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from edgespec.errors import StorageError
from edgespec.paths import ensure_folder

_LORA, _MERGED, _TRAINING = ".lora.gguf", ".merged.gguf", ".training"
_ASKED, _CLAIM, _JUDGED = ".asked.gguf", ".claim", ".judged-"
IDLE = ".idle"
"""How the files of trainings under way end that nobody asked for."""

_SHIPPED = Path(__file__).with_name("shipped")
_ABANDONED_S = 3600.0
"""Nobody judges for so long: what is older was left by a process that was killed."""

_PAIR = 33
"""Letters of a pair's name: two halves of 16 and a dash."""


class TrainingStore:
    """A folder of such files and nothing else; made when the first is written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def lora(self, target: str, drafter: str) -> Path:
        """Where the LoRA of a pair is kept, by the fingerprints of vocabulary and file."""
        return self.folder / f"{target[:16]}-{drafter[:16]}{_LORA}"

    def shipped(self, target: str, drafter: str) -> Path:
        """Where the LoRA of a pair is that ships with EdgeSpec, if one does."""
        return _SHIPPED / self.lora(target, drafter).name

    def training(self, target: str, drafter: str) -> Path:
        """Where a training of a pair is kept."""
        return self.folder / f"{target[:16]}-{drafter[:16]}{_TRAINING}"

    def idle(self, target: str, drafter: str) -> Path:
        """Where a training of a pair is kept that nobody asked for, until it was judged."""
        return self.folder / f"{target[:16]}-{drafter[:16]}{IDLE}"

    def asked(self, lora: Path) -> Path:
        """Where a LoRA that was asked for is kept after one learned by itself took its place."""
        return self.folder / f"{lora.name[:_PAIR]}{_ASKED}"

    def claim(self, target: str, drafter: str) -> Path:
        """What says that one process learns for a pair in idle time."""
        return self.folder / f"{target[:16]}-{drafter[:16]}{_CLAIM}"

    def merged(self, lora: Path, digest: str) -> Path:
        """Where a LoRA is kept that was added to a form of the drafter, which `digest` names."""
        return self.folder / f"{lora.name[:_PAIR]}-{digest}{_MERGED}"

    def merged_of(self, lora: Path) -> list[Path]:
        """Every file with this LoRA, or one before it of the same pair, added."""
        return sorted(self.folder.glob(f"{lora.name[:_PAIR]}-*{_MERGED}"))

    def loras(self) -> list[Path]:
        """Every LoRA kept, whether or not it can be read."""
        return sorted(self.folder.glob(f"*{_LORA}"))

    def shipped_loras(self) -> list[Path]:
        """Every LoRA that ships with EdgeSpec and serves: the user has none of its pair."""
        own = {path.name for path in self.loras()}
        return sorted(path for path in _SHIPPED.glob(f"*{_LORA}") if path.name not in own)

    def trainings(self) -> list[Path]:
        """Every training that can go on."""
        return sorted(self.folder.glob(f"*{_TRAINING}"))

    def idles(self) -> list[Path]:
        """Every training under way that nobody asked for."""
        return sorted(self.folder.glob(f"*{IDLE}"))

    def claims(self) -> list[Path]:
        """Every claim, those of processes that were killed included."""
        return sorted(self.folder.glob(f"*{_CLAIM}"))

    def drop_abandoned(self) -> None:
        """Delete what killed processes were judging."""
        oldest = time.time() - _ABANDONED_S
        for folder in self.folder.glob(f"{_JUDGED}*"):
            with contextlib.suppress(OSError):  # another process may be faster
                if folder.stat().st_mtime < oldest:
                    shutil.rmtree(folder, ignore_errors=True)

    def all(self) -> list[Path]:
        """Everything kept, and what killed processes left."""
        return sorted(self.folder.iterdir()) if self.folder.exists() else []

    def of_same_pair(self, paths: Iterable[Path]) -> list[Path]:
        """Every file of the pairs that `paths` belong to."""
        pairs = {path.name[:_PAIR] for path in paths}
        return [path for path in self.all() if path.name[:_PAIR] in pairs]

    def ensure(self) -> None:
        """Make the folder, its owner's only; raises StorageError."""
        ensure_folder(self.folder)

    def delete(self, paths: Iterable[Path]) -> None:
        """Forget files of this folder; raises StorageError."""
        for path in paths:
            try:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
            except OSError as error:
                raise StorageError(
                    f"cannot delete {path}: {error.strerror or error}", "delete it by hand"
                ) from error

    def scratch(self) -> tempfile.TemporaryDirectory[str]:
        """A folder for files that are to be judged."""
        return tempfile.TemporaryDirectory(prefix=_JUDGED, dir=self.folder)
