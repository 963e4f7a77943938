"""Which files there are, for completion."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

MAX_FILES = 20_000
MAX_FOLDERS = 4_000
SKIPPED = frozenset({"node_modules", "__pycache__"})


def is_explicit(path: str) -> bool:
    """True for a path that names its folder: absolute, from home, or with dots."""
    return path.startswith(("/", "~", "./", "../"))


def files_below(root: Path, stopped: Callable[[], bool] = lambda: False) -> list[str]:
    """Paths of files below `root`, those near it first; no hidden ones, at most `MAX_FILES`.

    Links to folders are not followed. Ends early once `stopped` says so.
    """
    found: list[str] = []
    folders = deque([""])
    num_folders = 0
    while folders and len(found) < MAX_FILES and num_folders < MAX_FOLDERS and not stopped():
        folder = folders.popleft()
        num_folders += 1
        for name, is_folder, is_link in _entries(root / folder):
            if name.startswith(".") or name in SKIPPED or (is_folder and is_link):
                continue
            if is_folder:
                folders.append(f"{folder}{name}/")
            elif len(found) < MAX_FILES:
                found.append(f"{folder}{name}")
    return found


def entries_of(path: str, root: Path) -> list[str]:
    """What stands in the folder that `path` names up to its last slash; folders end in a slash."""
    folder = path[: path.rfind("/") + 1]
    try:
        place = root / Path(folder or path).expanduser()
    except RuntimeError:  # no such user's home
        return []
    prefix = folder or f"{path}/"
    listed = list(_entries(place))[:MAX_FILES]
    return [f"{prefix}{name}{'/' if is_folder else ''}" for name, is_folder, _ in listed]


def _entries(folder: Path) -> Iterator[tuple[str, bool, bool]]:
    """Names in `folder`, whether each is a folder, and a link; nothing if it cannot be read."""
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        # A name that is no UTF-8 or moves the cursor can neither be shown nor typed.
        if entry.name.isprintable():
            yield entry.name, entry.is_dir(), entry.is_symlink()
