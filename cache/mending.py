"""One command at a time repairs a database or forgets."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import filelock

from edgespec.errors import BusyError


@contextlib.contextmanager
def only_mender(path: Path) -> Iterator[None]:
    """Hold off every other repair or forgetting of the database at `path`; raises BusyError.

    Two repairs at once would add everything twice, and one would bring back what is forgotten
    meanwhile. Copies that a killed repair left are deleted. The lock ends with the process.
    """
    lock = filelock.FileLock(path.with_name(f".{path.name}.lock"), mode=0o600, blocking=False)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise BusyError(
            f"another command repairs the database {path} or forgets", "wait for it, then try again"
        ) from error
    try:
        for copy in path.parent.glob(f".{path.name}.*"):
            if copy.is_dir():
                shutil.rmtree(copy)
        yield
    finally:
        lock.release()
