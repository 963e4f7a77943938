"""A file that is being fetched: hashed while it is written, kept when it is cut off."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from edgespec.errors import ChecksumError
from edgespec.models.disk import disk_errors

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Expected:
    """What a whole file must be; None where it is not known beforehand."""

    sha256: str | None
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class Fetched:
    """A whole, checked file in the folder of downloads, not yet in the model folder."""

    path: Path
    sha256: str


class PartFile:
    """An unfinished file, appended to; what earlier runs left in it counts.

    `on_size` is told the size after every change. Every failure of the disk is a StorageError. The
    bytes stay in the file when the block ends, by whatever exception.
    """

    def __init__(self, path: Path, expected: Expected, on_size: Callable[[int], None]) -> None:
        self._path = path
        self._expected = expected
        self._on_size = on_size
        self._size = 0
        self._hash = hashlib.sha256()

    def __enter__(self) -> Self:
        with disk_errors(self._path.parent):
            self._file = self._path.open("r+b" if self._path.exists() else "w+b")
            self._rehash(None)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with disk_errors(self._path.parent, self._missing()):
            self._file.close()

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._size

    def write(self, data: bytes) -> None:
        """Append `data`; raises StorageError when the disk is full."""
        with disk_errors(self._path.parent, self._missing()):
            self._file.write(data)
        self._hash.update(data)
        self._size += len(data)
        self._on_size(self._size)

    def cut(self, size: int) -> None:
        """Keep only the first `size` bytes, which are read again to hash them."""
        with disk_errors(self._path.parent):
            self._file.flush()
            self._file.truncate(size)
            self._rehash(size)

    def sync(self) -> None:
        """Have everything on the disk itself; raises StorageError."""
        with disk_errors(self._path.parent, self._missing()):
            self._file.flush()
            os.fsync(self._file.fileno())

    def finish(self, origin: str) -> Fetched:
        """The whole file, checked and on the disk.

        Raises ChecksumError, and deletes the file, when length or SHA-256 is not the expected one.
        """
        self.sync()
        digest = self._hash.hexdigest()
        expected = self._expected
        if expected.size_bytes not in (None, self._size):
            found = f"{self._size:,} bytes instead of {expected.size_bytes:,}"
        elif expected.sha256 not in (None, digest):
            found = f"SHA-256 {digest} instead of {expected.sha256}"
        else:
            return Fetched(self._path, digest)
        self._path.unlink(missing_ok=True)
        raise ChecksumError(f"{origin} sent a wrong file: {found}", "nothing was kept; pull again")

    def _missing(self) -> int:
        """Bytes still to be written, as far as that is known."""
        return max(0, (self._expected.size_bytes or 0) - self._size)

    def _rehash(self, size: int | None) -> None:
        """Hash the first `size` bytes (None: all) and stand behind them."""
        self._hash = hashlib.sha256()
        self._size = 0
        self._file.seek(0)
        while size is None or self._size < size:
            data = self._file.read(CHUNK_BYTES)
            if not data:
                break
            self._hash.update(data)
            self._size += len(data)
        self._on_size(self._size)


def file_sha256(path: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """SHA-256 of a file in hexadecimal; `on_bytes` is told how many bytes were read so far."""
    digest = hashlib.sha256()
    done = 0
    with path.open("rb") as file:
        while data := file.read(CHUNK_BYTES):
            digest.update(data)
            done += len(data)
            if on_bytes is not None:
                on_bytes(done)
    return digest.hexdigest()
