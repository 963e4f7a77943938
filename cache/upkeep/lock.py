"""One process at a time backs a database up, repairs it, replaces it or forgets."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from edgespec.errors import BusyError

WAIT_S = 10.0
"""Usually enough for another process's backup."""


@contextlib.contextmanager
def upkeep_lock(path: Path, wait_s: float | None = None) -> Iterator[None]:
    """Hold off all other upkeep of the database at `path`; raises BusyError, OSError.

    Two repairs at once would add everything twice; a repair or a backup beside a forgetting would
    keep what is forgotten. Unfinished files of a killed process are deleted. The lock ends with the
    process; others have it for at most `wait_s` seconds (WAIT_S) before this gives up.
    """
    import filelock  # loads asyncio: seldom needed, and never before an answer

    lock = filelock.FileLock(path.with_name(f".{path.name}.lock"), mode=0o600)
    try:
        lock.acquire(timeout=WAIT_S if wait_s is None else wait_s)
    except filelock.Timeout as error:
        raise BusyError(
            f"another command repairs the database {path}, backs it up or forgets",
            "wait for it, then try again",
        ) from error
    try:
        _delete_unfinished(path)
        yield
    finally:
        lock.release()


def _delete_unfinished(path: Path) -> None:
    for left in path.parent.glob(f".{path.name}.*"):
        if left.is_dir():
            shutil.rmtree(left)
        elif ".part" in left.name:
            left.unlink(missing_ok=True)
