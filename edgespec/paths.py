"""Where EdgeSpec keeps its files: the platform's own folders, or all below `EDGESPEC_HOME`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from edgespec.errors import StorageError


@dataclass(frozen=True, slots=True)
class Paths:
    """Folders and files of one user; nothing is created until `ensure` is called."""

    data: Path
    cache: Path

    @property
    def models(self) -> Path:
        """Folder of downloaded models."""
        return self.data / "models"

    @property
    def database(self) -> Path:
        """The SQLite file: measurements, recorded tokens, conversations."""
        return self.data / "edgespec.db"

    @property
    def keys(self) -> Path:
        """The user's own keys for the chat, if they wrote any."""
        return self.data / "keys.toml"

    @property
    def adaptations(self) -> Path:
        """Folder of what drafters learned from the user's targets."""
        return self.data / "adaptations"

    @property
    def corpora(self) -> Path:
        """Folder of what targets said to prompts of ours, to be learned from."""
        return self.data / "corpora"

    @property
    def trials(self) -> Path:
        """Folder of what is known of loading each model file (`edgespec.models.trials`)."""
        return self.data / "trials"

    @property
    def downloads(self) -> Path:
        """Folder of unfinished downloads, resumable."""
        return self.cache / "downloads"

    @property
    def trimmed(self) -> Path:
        """Folder of trimmed drafters, which can be made again from whole ones."""
        return self.cache / "trimmed"

    @property
    def prompts(self) -> Path:
        """Folder of what the target computed of recent conversations, which it can do again."""
        return self.cache / "prompts"

    def ensure(self, folder: Path) -> Path:
        """Create `folder`, readable by its owner only, and return it; raises StorageError."""
        return ensure_folder(folder)


def ensure_folder(folder: Path) -> Path:
    """Create `folder`, readable by its owner only, and return it; raises StorageError."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StorageError(
            f"cannot create {folder}: {error.strerror or error}",
            "free space there or set EDGESPEC_HOME to a folder you can write to",
        ) from error
    return folder


def user_paths() -> Paths:
    """The current user's paths; `EDGESPEC_HOME`, if set and not empty, holds everything."""
    home = os.environ.get("EDGESPEC_HOME")
    if home:
        root = Path(home).expanduser()
        return Paths(data=root, cache=root / "cache")
    return Paths(
        data=platformdirs.user_data_path("edgespec", appauthor=False),
        cache=platformdirs.user_cache_path("edgespec", appauthor=False),
    )
