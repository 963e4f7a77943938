"""One process at a time learns for a pair by itself, and what is forgotten meanwhile ends it.

The claim is a locked file among those of the pair. Whoever forgets what was learned deletes all of
them; so does whoever writes something, should the claim be gone by then: what was learned from what
is forgotten never stays.

    learner      write            the claim is there?   keep : delete what was written
    forgetting   delete all files, until there are none left
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgespec.errors import Cancelled, StorageError
from edgespec.learning.training import Arrays, Progress


class Claim:
    """A claim that this process has, by an open file; it ends with the process."""

    def __init__(self, path: Path, file: int) -> None:
        self.path = path
        self._file = file

    @staticmethod
    def take(path: Path) -> Claim | None:
        """None if another process has it; raises StorageError where no file can be written."""
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageError(
                f"cannot write to {path.parent}: {error.strerror or error}", "make it writable"
            ) from error
        claim = Claim(path, file)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            return None
        if claim.holds:
            return claim
        os.close(file)  # another process gave it up between both steps
        return None

    @property
    def holds(self) -> bool:
        """Whether nobody has forgotten what is being learned."""
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._file))
        except OSError:
            return False

    def give_up(self) -> None:
        """Let others have it; once."""
        if self.holds:
            with contextlib.suppress(OSError):
                self.path.unlink()
        os.close(self._file)


@dataclass(frozen=True, slots=True)
class ByItself:
    """How a training goes that nobody asked for.

    It leaves a core to others, goes on where the one before was ended, if it was, and its seconds
    are those of its own computing. `begin` is called when all is read and nothing is locked; it
    `is_wanted` as long as nobody forgot what it learns from.
    """

    begin: Callable[[], None]
    is_wanted: Callable[[], bool]

    def require(self, written: Path | None = None) -> None:
        """Raises Cancelled if it is wanted no more; then what was `written` is deleted."""
        if not self.is_wanted():
            if written is not None:
                written.unlink(missing_ok=True)
            raise Cancelled

    def watched(
        self, keep: Callable[[Progress, Arrays], None], path: Path
    ) -> Callable[[Progress, Arrays], None]:
        """`keep`, which writes to `path`, as long as it is wanted."""

        def kept(progress: Progress, state: Arrays) -> None:
            keep(progress, state)
            self.require(path)

        return kept
