"""Writing to a disk that may be full: errors in plain words, free space, atomic small files."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from edgespec.errors import StorageError
from edgespec.files.scratch import taking_the_place_of

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What the system says when a file cannot grow: no space, over quota, over the size limit."""


def storage_error(folder: Path, error: OSError, needed: int = 0) -> StorageError:
    """A StorageError for `error` on `folder`; `needed` bytes were still to be written."""
    if error.errno in FULL:
        return full_disk(folder, needed, error.errno)
    return StorageError(
        f"cannot write in {folder}: {error.strerror or error}",
        "make it writable or set EDGESPEC_HOME to another folder",
    )


def full_disk(folder: Path, needed: int, code: int | None = errno.ENOSPC) -> StorageError:
    """A StorageError that names the folder and the bytes needed and free; `code` is an errno."""
    reason = " (file size limit)" if code == errno.EFBIG else ""
    return StorageError(
        f"not enough space in {folder}{reason}: {needed:,} bytes are needed, "
        f"{free_bytes(folder):,} are free",
        "free some or set EDGESPEC_HOME to a folder on a larger disk",
    )


def free_bytes(folder: Path) -> int:
    """Bytes free for this user on the disk of `folder`; 0 if it cannot be asked."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


def require_space(folder: Path, needed: int) -> None:
    """Raise StorageError unless `needed` bytes are free on the disk of `folder`, which exists."""
    if needed > free_bytes(folder):
        raise full_disk(folder, needed)


@contextlib.contextmanager
def disk_errors(folder: Path, needed: int = 0) -> Iterator[None]:
    """Turn every OSError of the block into a StorageError about `folder`."""
    try:
        yield
    except OSError as error:
        raise storage_error(folder, error, needed) from error


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """Replace `path` by `value` as JSON, whole or not at all; raises StorageError."""
    with disk_errors(path.parent), taking_the_place_of(path) as scratch:
        scratch.write_text(json.dumps(value, indent=1), encoding="utf-8")


def read_json(path: Path) -> dict[str, object]:
    """The JSON object in `path`; empty if there is none or it cannot be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` last through a power cut, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
