"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgespec.errors import StorageError


@contextlib.contextmanager
def taking_the_place_of(path: Path, *, is_synced: bool = True) -> Iterator[Path]:
    """A scratch file beside `path`, its owner's only, that replaces it when the block ends well.

    Whatever else ends the block, nothing of it stays. Where it is not `is_synced`, a machine that
    stops may leave less than the whole: for what can be checked and made again. Raises OSError.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    scratch = Path(name)
    try:
        yield scratch
        if is_synced:
            with scratch.open("rb+") as file:
                os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def write_text(path: Path, text: str, remedy: str = "choose another file") -> None:
    """Write a file whole or not at all; raises StorageError, which advises the `remedy`.

    What is no file (/dev/stdout, say) is written to as it is.
    """
    try:
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8")
            return
        with taking_the_place_of(path) as scratch:
            scratch.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}", remedy) from error
