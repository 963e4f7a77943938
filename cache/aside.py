"""Damaged databases kept beside the one in use: NAME.damaged-DATE, and NAME.salvaged-DATE later.

The second name says that what could be read of one is in the database again.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

_PARTS = ("-wal", "-shm", "")
"""A database with its log; the log holds what was committed last."""


def set_aside(path: Path) -> Path:
    """Rename a damaged database, its log with it, and return its new name; raises OSError."""
    return _rename(path, path, "damaged-" + time.strftime("%Y%m%d-%H%M%S"))


def mark_salvaged(path: Path, aside: Path) -> Path:
    """Note that `aside`, once the database at `path`, was read; its new name; raises OSError."""
    date = aside.name.removeprefix(f"{path.name}.damaged-")
    return _rename(aside, path, f"salvaged-{date}")


def unsalvaged(path: Path) -> list[Path]:
    """Damaged files of the database at `path` that hold what it may not, the oldest first."""
    return _whole(path, "damaged-*")


def delete_salvaged(path: Path) -> None:
    """Delete the damaged files whose content is in the database at `path`; raises OSError."""
    _delete(_whole(path, "salvaged-*"))


def delete_all(path: Path) -> None:
    """Delete every damaged file of the database at `path`; raises OSError."""
    _delete(unsalvaged(path))
    delete_salvaged(path)


def _whole(path: Path, kind: str) -> list[Path]:
    found = path.parent.glob(f"{path.name}.{kind}")
    return sorted(file for file in found if not file.name.endswith(("-wal", "-shm")))


def _rename(file: Path, path: Path, suffix: str) -> Path:
    """Rename a database with its log: killed meanwhile, there are both together, here or there."""
    new = path.with_name(f"{path.name}.{suffix}")
    number = 1
    while new.exists():  # twice in one second, or the clock went backwards
        number += 1
        new = path.with_name(f"{path.name}.{suffix}-{number}")
    pairs = [(file.with_name(file.name + part), new.with_name(new.name + part)) for part in _PARTS]
    pairs = [(old, other) for old, other in pairs if old.exists()]
    try:
        for old, other in pairs:
            os.link(old, other)
    except OSError:  # a file system without links
        for old, other in pairs:
            old.replace(other)
    else:
        for old, _other in pairs:
            old.unlink()
    return new


def _delete(files: list[Path]) -> None:
    for file in files:
        for part in _PARTS:
            file.with_name(file.name + part).unlink(missing_ok=True)
