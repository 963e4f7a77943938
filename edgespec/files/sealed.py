"""Files of arrays that are whole or refused: a line of magic, a line of JSON, then numpy's npz.

The JSON holds what the caller wants to tell of the arrays, and the size and SHA-256 of the rest. A
file appears whole or not at all, and is read only as a whole.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from edgespec.errors import StorageError
from edgespec.files.scratch import taking_the_place_of

_LONGEST_HEADER = 1 << 16


def write_sealed(
    path: Path, magic: bytes, about: Mapping[str, Any], arrays: Mapping[str, np.ndarray[Any, Any]]
) -> None:
    """Write `arrays` and what is told of them; raises StorageError."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    body = buffer.getbuffer()
    seal = {"num_bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    try:
        with taking_the_place_of(path) as scratch, scratch.open("wb") as file:
            file.write(magic + json.dumps({**about, **seal}).encode() + b"\n")
            file.write(body)
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror or error}",
            "free space or choose another folder",
        ) from error


def read_sealed(
    path: Path, magic: bytes, most_bytes: int, remedy: str
) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
    """What is told, and the arrays; raises StorageError if cut off, foreign or damaged.

    More than `most_bytes` are not read. `remedy` says what to do about a file that is refused.
    """
    try:
        with path.open("rb") as file:
            about = _header(file, path, magic, remedy)
            body = file.read(min(most_bytes, os.fstat(file.fileno()).st_size))
        if len(body) != about["num_bytes"] or hashlib.sha256(body).hexdigest() != about["sha256"]:
            raise StorageError(f"{path} is cut off or damaged", remedy)
        with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
            return about, {name: arrays[name] for name in arrays.files}
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}", remedy) from error
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise StorageError(f"{path} is damaged ({error})", remedy) from error


def read_about(path: Path, magic: bytes, remedy: str) -> dict[str, Any]:
    """What is told of the arrays, which are not read; raises StorageError as `read_sealed`.

    A file that is cut off is refused, changed bytes are not seen.
    """
    try:
        with path.open("rb") as file:
            about = _header(file, path, magic, remedy)
            num_bytes = os.fstat(file.fileno()).st_size - file.tell()
        if num_bytes != about["num_bytes"]:
            raise StorageError(f"{path} is cut off or damaged", remedy)
        return about
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}", remedy) from error
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{path} is damaged ({error})", remedy) from error


def _header(file: IO[bytes], path: Path, magic: bytes, remedy: str) -> dict[str, Any]:
    if file.readline(len(magic)) != magic:
        raise StorageError(f"{path} is of another kind or version", remedy)
    about: dict[str, Any] = json.loads(file.readline(_LONGEST_HEADER))
    return about
