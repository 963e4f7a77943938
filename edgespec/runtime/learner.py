"""A process that learns while nobody waits, as the process that serves sees it.

    start      it reads what it learns from; whoever comes ends it, since it may hold a database
    "ready"    it has read everything; whoever comes stops it where it is (SIGSTOP), within a
               millisecond, and afterwards it goes on (SIGCONT)
    outcome    a line of JSON, and it ends

Its stdin is a pipe that is never written to: the end of it is the end of this process, and of the
learner. One that is stopped notices nothing, so it is the only process of a group in the session of
its parent: when that ends, however that comes, the system ends stopped processes of such a group.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

from edgespec.errors import EdgeSpecError

READY = "ready"
"""The line by which a learner tells that it may be stopped."""

_MAY_STOP = hasattr(signal, "SIGSTOP")


class Learner:
    """Implements `edgespec.pauses.Abortable`: a child that computes only while it may."""

    def __init__(self, arguments: Sequence[str], program: Sequence[str] = ()) -> None:
        """Start `edgespec.runtime.train_child`, or another `program`; raises OSError."""
        # -P: nothing is imported from the folder that the user happens to be in.
        command = program or (sys.executable, "-P", "-m", "edgespec.runtime.train_child")
        self._process = subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )
        self._changed = threading.Condition()
        self._is_asked_to_stop = False
        self._is_ready = False
        self._is_over = False
        self._last_line = ""
        self.is_killed = False
        self._reader = threading.Thread(target=self._read, name="learner", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def abort(self) -> None:
        """Have it compute no more, now; from any thread."""
        with self._changed:
            self._is_asked_to_stop = True
            self._hold()
            self._changed.notify_all()

    def resume(self) -> None:
        """It may go on, when `go_on` is called."""
        with self._changed:
            self._is_asked_to_stop = False

    def hold(self) -> None:
        """Have it compute no more until `go_on`."""
        with self._changed:
            self._hold()

    def go_on(self) -> None:
        """Have it compute, unless it was asked to stop meanwhile."""
        with self._changed:
            if not self._is_asked_to_stop and not self._is_over and _MAY_STOP:
                self._process.send_signal(signal.SIGCONT)

    def wait(self, timeout_s: float) -> bool:
        """Wait until it ended, is asked to stop, or for so long; whether it ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_over or self._is_asked_to_stop, timeout_s)
            return self._is_over

    def outcome(self) -> dict[str, Any]:
        """What one that ended came to; raises EdgeSpecError for what is none."""
        with contextlib.suppress(ValueError):
            found = json.loads(self._last_line)
            if isinstance(found, dict):
                return found
        status = self._process.returncode
        how = f"by signal {-status}" if status < 0 else f"with status {status}"
        raise EdgeSpecError(f"the training ended {how}")

    def close(self) -> None:
        """End it, and wait until it has."""
        with self._changed:
            self._process.kill()
        self._reader.join()

    def _hold(self) -> None:
        if self._is_over:
            return
        if self._is_ready and _MAY_STOP:
            self._process.send_signal(signal.SIGSTOP)
        else:
            self.is_killed = True
            self._process.kill()

    def _read(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdin is not None
        for line in self._process.stdout:
            text = line.decode("utf-8", "replace").strip()
            with self._changed:
                self._is_ready |= text == READY
                self._last_line = text
        self._process.wait()
        self._process.stdout.close()
        self._process.stdin.close()
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
