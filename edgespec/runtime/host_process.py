"""One host process as its parent sees it: what it is asked, what comes back, how it died.

    caller       `call` queues a message and returns; replies are waited for in the `Call`
    keeper       starts the process, then writes what is queued; ends it in the end
    reader       gives each reply to its call, lines to `report`; its death to every open call

The two threads of ours leave the main thread free: a signal there neither loses a process half
started nor cuts a message in two.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import IO, Protocol

from edgespec.errors import EdgeSpecError
from edgespec.reports import Report
from edgespec.runtime.host_death import Death, num_killed_for_memory
from edgespec.runtime.host_messages import LINE, Asked, Cancel, Load, Pipe
from edgespec.types import Chunk

_PATIENCE_S = 20.0
"""How long a host may take to write down what it learned before it is killed."""

_PATIENCE_IN_LOADING_S = 2.0
_MOST_LINES = 20
"""Lines of the process's stderr that are kept, the last; of each the first `_MOST_BYTES`."""

_MOST_BYTES = 2000

_ALLOCATION = {
    "MALLOC_MMAP_THRESHOLD_": str(4 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(8 << 20),
}
"""What glibc is told: buffers from 4 MiB on are the system's own again once they are freed.

By itself it raises these limits with what is freed, and cells of conversations that were let go
stay behind in the arena of each thread that held some.
"""


class Process(Protocol):
    """A child with a pipe to it, in the main `subprocess.Popen`."""

    @property
    def pid(self) -> int:
        """Its number."""
        ...

    @property
    def stderr(self) -> IO[bytes] | None:
        """What it says; None where others hear it."""
        ...

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, negative for a signal; raises subprocess.TimeoutExpired."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...


Spawn = Callable[[bool], tuple[Process, socket.socket]]
"""Starts a process, told whether its stderr is for people; raises OSError."""


def environment() -> dict[str, str]:
    """The variables of a host: ours, and for the allocator what the user did not set."""
    return {**_ALLOCATION, **os.environ, "GGML_NO_BACKTRACE": "1"}


def spawn_host(verbose: bool) -> tuple[Process, socket.socket]:
    """Start `edgespec.runtime.host_child`, out of reach of the terminal's signals."""
    ours, theirs = socket.socketpair()
    try:
        process = subprocess.Popen(
            # -P: nothing is imported from the folder that the user happens to be in.
            [sys.executable, "-P", "-m", "edgespec.runtime.host_child", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=None if verbose else subprocess.PIPE,
            pass_fds=(theirs.fileno(),),
            env=environment(),
            start_new_session=True,
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return process, ours


class Call:
    """A message that was sent, and what comes back."""

    def __init__(self, number: int, message: Asked) -> None:
        self.number = number
        self.message = message
        self._replies: queue.SimpleQueue[object] = queue.SimpleQueue()

    def put(self, value: object) -> None:
        """Hand over a reply; from any thread."""
        self._replies.put(value)

    def get(self) -> object:
        """Wait for the next reply; raises what went wrong. Signals interrupt the wait."""
        value = self._replies.get()
        if isinstance(value, EdgeSpecError):
            raise value
        return value


class HostProcess:
    """Starts a host; `death` is None until it has ended, or could not even begin."""

    def __init__(
        self, spawn: Spawn, report: Report, mourn: Callable[[Death, bool], Death], *, verbose: bool
    ) -> None:
        """Return before the process is there.

        `report` and `mourn` are called in a thread, the latter before anybody hears of the death,
        told whether it came before a model was there; it returns the death that is told.
        """
        self.death: Death | None = None
        self.has_loaded = False
        self._spawn = spawn
        self._report = report
        self._mourn = mourn
        self._verbose = verbose
        self._lock = threading.Lock()
        self._calls: dict[int, Call] = {}
        self._next_number = LINE + 1
        self._outgoing: queue.SimpleQueue[tuple[int, Asked] | None] = queue.SimpleQueue()
        self._keeper = threading.Thread(target=self._keep, name="host keeper", daemon=True)
        self._keeper.start()

    @property
    def is_busy(self) -> bool:
        """Whether a reply is still to come."""
        with self._lock:
            return bool(self._calls)

    def call(self, message: Asked) -> Call:
        """Send a message; a dead process answers with its death."""
        with self._lock:
            call = Call(self._next_number, message)
            self._next_number += 1
            if self.death is not None:
                call.put(self.death.error())
            else:
                self._calls[call.number] = call
                self._outgoing.put((call.number, message))
        return call

    def cancel(self, call: Call) -> None:
        """End the answer to `call`; does nothing once it is over."""
        self._outgoing.put((call.number, Cancel()))

    def close(self) -> None:
        """Have it write down what it learned and end; kill it if that takes too long."""
        self._outgoing.put(None)
        self._keeper.join()

    # The keeper

    def _keep(self) -> None:
        memory_kills = num_killed_for_memory()
        try:
            process, end = self._spawn(self._verbose)
        except OSError as error:
            self._die(Death.unborn(error))
            return
        pipe, said = Pipe(end), _Tail(process.stderr)
        reader = threading.Thread(
            target=self._read, args=(process, pipe, said, memory_kills), name="host", daemon=True
        )
        reader.start()
        while (item := self._outgoing.get()) is not None:
            with contextlib.suppress(OSError):  # dead: the reader says so
                pipe.send(*item)
        with contextlib.suppress(OSError):
            pipe.end()
        reader.join(_PATIENCE_S if self.has_loaded else _PATIENCE_IN_LOADING_S)
        if reader.is_alive():
            process.kill()
            reader.join()
        pipe.close()

    # The reader

    def _read(self, process: Process, pipe: Pipe, said: _Tail, memory_kills: int) -> None:
        # Whatever goes wrong in reading, what follows cannot be read either.
        with contextlib.suppress(Exception):
            while True:
                self._deliver(*pipe.receive())
        try:
            status = process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:  # it closed the pipe and lives on: of no use to anybody
            process.kill()
            status = process.wait()
        ran_out = num_killed_for_memory() > memory_kills
        self._die(Death.of(process.pid, status, said.lines(), ran_out_of_memory=ran_out))
        self._outgoing.put(None)  # ends the keeper

    def _deliver(self, number: int, value: object) -> None:
        if number == LINE:
            self._report(str(value))
            return
        with self._lock:
            call = self._calls.get(number)
            if call is None:
                return
            if not isinstance(value, Chunk) or value.completion is not None:
                del self._calls[number]
        if isinstance(call.message, Load) and not isinstance(value, EdgeSpecError):
            self.has_loaded = True
        call.put(value)

    def _die(self, death: Death) -> None:
        death = self._mourn(death, not self.has_loaded)
        with self._lock:
            self.death = death
            calls = list(self._calls.values())
            self._calls.clear()
        for call in calls:
            call.put(death.error())


class _Tail:
    """Reads a process's stderr, in a thread, so that it never waits for us; keeps the end."""

    def __init__(self, stderr: IO[bytes] | None) -> None:
        self._lines: deque[bytes] = deque(maxlen=_MOST_LINES)
        self._thread: threading.Thread | None = None
        if stderr is not None:
            self._thread = threading.Thread(
                target=self._read, args=(stderr,), name="host stderr", daemon=True
            )
            self._thread.start()

    def lines(self) -> list[str]:
        """The last lines that were not empty; the process has ended."""
        if self._thread is not None:
            self._thread.join(1.0)
        texts = (line.decode("utf-8", "replace").strip() for line in self._lines)
        return [text for text in texts if text]

    def _read(self, stderr: IO[bytes]) -> None:
        with stderr:
            while line := stderr.readline(_MOST_BYTES):
                self._lines.append(line)
