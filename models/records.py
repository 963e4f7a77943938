"""What was found when a model file was last hashed, kept in a small JSON file beside it.

A file counts as verified while its size and modification time are those of the record; `edgespec
models verify` hashes it anew.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from edgespec.models.disk import read_json, write_json


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file as it was when it was hashed: size in bytes, time in ns, and where it came from."""

    sha256: str
    size_bytes: int
    mtime_ns: int
    source: str


def record_path(path: Path) -> Path:
    """The record's own file, beside the model."""
    return path.with_name(f"{path.name}.json")


def write_record(path: Path, sha256: str, source: str) -> FileRecord:
    """Remember that `path`, as it is now, has this SHA-256; raises StorageError."""
    stat = path.stat()
    record = FileRecord(sha256, stat.st_size, stat.st_mtime_ns, source)
    write_json(record_path(path), asdict(record))
    return record


def read_record(path: Path) -> FileRecord | None:
    """The record of `path`, if there is one; it may be of an older state of the file."""
    match read_json(record_path(path)):
        case {
            "sha256": str(sha256),
            "size_bytes": int(size_bytes),
            "mtime_ns": int(mtime_ns),
            "source": str(source),
        }:
            return FileRecord(sha256, size_bytes, mtime_ns, source)
    return None


def is_verified(path: Path) -> bool:
    """True if `path` is as it was when its recorded SHA-256 was computed."""
    record = read_record(path)
    if record is None or not path.is_file():
        return False
    stat = path.stat()
    return (record.size_bytes, record.mtime_ns) == (stat.st_size, stat.st_mtime_ns)
