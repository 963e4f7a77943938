"""Model files on trial: one that kills the process that loads it is known at the next start.

A file that was never loaded here is loaded under a mark that names the process. The mark goes when
loading has ended, well or with an error; one whose process is gone was left by a crash. Files that
were loaded once are not tried again until they change.

    folder/FINGERPRINT.trying    "PID"    of the file's path, size and time of change
    folder/FINGERPRINT.passed
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from edgespec.errors import ModelFileError
from edgespec.files.scratch import taking_the_place_of

_TRYING, _PASSED = ".trying", ".passed"


class Trials:
    """Marks of model files, in a folder that is made when it is needed.

    Where it cannot be written there are no marks: that is no reason not to load a model.
    """

    def __init__(self, folder: Path) -> None:
        """`folder` is `Paths.trials`."""
        self._folder = folder

    @contextlib.contextmanager
    def loading(self, path: Path) -> Iterator[None]:
        """In this block the file at `path`, and all that `begin`, are on trial.

        Raises ModelFileError if the file has killed a process before.
        """
        self.begin(path)
        try:
            yield
        except BaseException:
            self.withdraw(os.getpid())
            raise
        for mark in self._marks_of(os.getpid()):
            with contextlib.suppress(OSError):
                mark.replace(mark.with_suffix(_PASSED))

    def begin(self, path: Path) -> None:
        """Mark the file at `path`, unless it was loaded before; raises as `loading`."""
        if self.is_marked(path):
            raise ModelFileError(
                f"{path.name} killed the engine when it was first loaded",
                f"`edgespec doctor --model {path}` tries it again",
            )
        mark = self._mark(path)
        if mark is None or mark.with_suffix(_PASSED).exists():
            return
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with taking_the_place_of(mark) as scratch:
                scratch.write_text(str(os.getpid()))

    def is_marked(self, path: Path) -> bool:
        """True if a process that is gone left a mark on the file at `path`."""
        mark = self._mark(path)
        pid = _pid_in(mark) if mark is not None else None
        return pid is not None and not _lives(pid)

    def forgive(self, path: Path) -> None:
        """Take the mark off the file at `path`, so that it can be tried again."""
        mark = self._mark(path)
        if mark is not None:
            mark.unlink(missing_ok=True)

    def withdraw(self, pid: int) -> None:
        """Take off the marks of the process `pid`: it was not the files that ended it."""
        for mark in self._marks_of(pid):
            mark.unlink(missing_ok=True)

    def _mark(self, path: Path) -> Path | None:
        """Where the file's mark is, or would be; None without a file."""
        try:
            found = path.stat()
        except OSError:
            return None
        told = f"{path.absolute()}|{found.st_size}|{found.st_mtime_ns}"
        name = hashlib.sha256(os.fsencode(told)).hexdigest()[:32]
        return self._folder / f"{name}{_TRYING}"

    def _marks_of(self, pid: int) -> list[Path]:
        return [mark for mark in self._folder.glob(f"*{_TRYING}") if _pid_in(mark) == pid]


def _pid_in(mark: Path) -> int | None:
    try:
        return int(mark.read_text())
    except (OSError, ValueError):
        return None


def _lives(pid: int) -> bool:
    import psutil  # seldom needed: there is a mark

    return bool(psutil.pid_exists(pid))
