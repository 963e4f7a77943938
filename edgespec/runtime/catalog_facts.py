"""What this machine says of model files, without the native library: memory and speed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from edgespec.cache.database import Database, open_database
from edgespec.cache.facts import Facts
from edgespec.errors import ModelFileError, StorageError
from edgespec.files.fingerprint import file_fingerprint
from edgespec.gguf.file import GgufFile
from edgespec.llama.options import ContextOptions
from edgespec.machine.available import MOST_SHARE, available_memory
from edgespec.machine.identity import this_machine
from edgespec.machine.memory_need import memory_need
from edgespec.paths import Paths

_MODEL = "model"
"""The kind of facts that `edgespec.machine.facts` remembers of a model."""

_TIGHT_SHARE = 0.8
"""Of the memory that there is: what takes more leaves little to others."""

_USUAL_NEED = 1.4
"""Memory that a model takes, by the bytes of its file: where that cannot be asked."""


class MachineFacts:
    """Memory and remembered speeds, for the length of a block.

    What the host and other children of this process hold counts as free: another model takes its
    place.
    """

    def __init__(self, paths: Paths, num_context: int) -> None:
        """`num_context` tokens are what a target will be loaded with."""
        self._machine = this_machine()
        self._options = ContextOptions(num_context, self._machine.num_threads)
        free = available_memory()
        self._num_free = None if free is None else free + _held_by_children()
        self._database = _opened(paths.database)

    def __enter__(self) -> MachineFacts:
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._database is not None:
            self._database.close()

    def fits(self, path: Path) -> str:
        """Whether the model at `path` fits into memory as a target."""
        try:
            return fits_in(memory_need(GgufFile(path), self._options, 1).total, self._num_free)
        except ModelFileError:
            return "cannot be read"

    def probably_fits(self, size_bytes: int) -> str:
        """Whether a model would fit whose file has so many bytes and is not here."""
        return fits_in(round(_USUAL_NEED * size_bytes), self._num_free)

    def speed(self, path: Path) -> str | None:
        """How fast the model at `path` answers here without drafts; None if it never did."""
        if self._database is None:
            return None
        with contextlib.suppress(OSError):
            pattern = f"{file_fingerprint(path)}|*|{self._machine.key}|*"
            return told_speed(Facts(self._database).newest(_MODEL, pattern))
        return None


def fits_in(num_bytes: int, num_free: int | None) -> str:
    """Whether so many bytes fit into memory, in words; `num_free` None is not known.

    >>> fits_in(10**9, 4 * 10**9), fits_in(36 * 10**8, 4 * 10**9), fits_in(61 * 10**8, 4 * 10**9)
    ('fits', 'tight', 'does not fit: needs 6.1 GB, 4.0 free')
    """
    if num_free is None:
        return f"needs {num_bytes / 1e9:.1f} GB"
    if num_bytes > MOST_SHARE * num_free:
        return f"does not fit: needs {num_bytes / 1e9:.1f} GB, {num_free / 1e9:.1f} free"
    return "tight" if num_bytes > _TIGHT_SHARE * num_free else "fits"


def told_speed(facts: Mapping[str, Any] | None) -> str | None:
    """Plain speed by the remembered facts of a model: one over T(1).

    >>> told_speed({"table": {"short_ms": {"1": 54.0}}})
    '19 tok/s here'
    """
    match facts:
        case {"table": {"short_ms": {"1": int() | float() as ms}}} if ms > 0:
            return f"{1e3 / ms:.{0 if ms < 100 else 1}f} tok/s here"
    return None


def _held_by_children() -> int:
    """Bytes of memory that only children of this process use."""
    held = 0
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            memory = child.memory_info()
            held += max(memory.rss - getattr(memory, "shared", 0), 0)
    return held


def _opened(path: Path) -> Database | None:
    """The database if there is one that can be used."""
    if not path.is_file():
        return None
    try:
        return open_database(path)
    except StorageError:  # of a newer EdgeSpec
        return None
