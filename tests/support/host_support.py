"""A host whose child is a thread of the test: the real messages over a real pipe, no process."""

from __future__ import annotations

import io
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from server_support import EchoCompleter

from edgespec.paths import Paths
from edgespec.reports import Report
from edgespec.runtime.host import Host
from edgespec.runtime.host_child import Child, Opened, bound_memory
from edgespec.runtime.host_messages import Load, Pipe
from edgespec.runtime.request import LoadRequest
from edgespec.types import CompletionRequest

OPTIONS = LoadRequest(drafter="none")
GONE_PID = 2**22 + 1
"""More than any process has on Linux."""


class ThreadProcess:
    """Stands for the child process; `die` ends it as a signal or an exit would."""

    pid = GONE_PID

    def __init__(self, open_model: Callable[[Load, Report], Opened], said: bytes) -> None:
        self.stderr = io.BytesIO(said)
        self.end, self._theirs = socket.socketpair()
        self._status: int | None = None
        self._ended = threading.Event()
        self._pipe = Pipe(self._theirs)
        self._child = Child(self._pipe, open_model, lambda _child: None, self._end)
        threading.Thread(target=self._run, name="child", daemon=True).start()

    def die(self, status: int) -> None:
        self._status = status
        self._theirs.shutdown(socket.SHUT_RDWR)
        self._ended.set()

    def wait(self, timeout: float | None = None) -> int:
        if not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired("child", timeout or 0.0)
        return self._status or 0

    def kill(self) -> None:
        self.die(-signal.SIGKILL)

    def _end(self, child: Child) -> None:
        if child.is_loading and self._status is None:
            self.die(-signal.SIGTERM)

    def _run(self) -> None:
        try:
            self._child.run()
        finally:
            bound_memory(None)  # this process is the tests' own
        if self._status is None:
            self.die(0)
        self._pipe.close()


class Childhood:
    """Opens models for hosts, and keeps what became of them.

    A model is an `EchoCompleter`; what `before_loading` raises or does happens first.
    """

    def __init__(self, folder: Path) -> None:
        self.paths = Paths(folder, folder / "cache")
        self.processes: list[ThreadProcess] = []
        self.loads: list[Load] = []
        self.closed: list[Path] = []
        self.asked: list[CompletionRequest] = []
        self.forgotten: list[str] = []
        self.completer = EchoCompleter()
        self.before_loading: Callable[[Load], None] = lambda _load: None
        self.said = b""
        self.num_refused = 0
        self.now = 100.0

    def host(self) -> Host:
        return Host(self.paths, spawn=self.spawn, clock=lambda: self.now)

    def spawn(self, _verbose: bool) -> tuple[ThreadProcess, socket.socket]:
        if self.num_refused:
            self.num_refused -= 1
            raise OSError(12, "Cannot allocate memory")
        process = ThreadProcess(self.open, self.said)
        self.processes.append(process)
        return process, process.end

    def open(self, load: Load, report: Report) -> Opened:
        report(f"loading {load.path.name}")
        self.loads.append(load)
        self.before_loading(load)
        return Opened(
            self.completer,
            self.asked.append,
            lambda: self.closed.append(load.path),
            self.forgotten.append,
        )
