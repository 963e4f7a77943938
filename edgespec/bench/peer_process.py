"""A llama-server of our own: started for a benchmark, asked in turns, and stopped.

It has a free port, the run's model file, context and threads, and a process group of its own: what
ends the benchmark does not end it by chance, and whatever it started goes with it. A shell waits
for the end of this process, however it comes, and ends the group then. Flags that people give come
last, so that they win. Its output goes to a file, of which errors show the end.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx2
import psutil

from edgespec.bench.chat_client import Heard, PeerError

_MOST_SHOWN = 300
_NUM_LINES = 3
_POLL_S = 0.05
_BUSY = 0.1
"""Share of a core above which a program does something."""

_DRAFT_MODEL = ("-md", "--model-draft", "--spec-draft-model", "--draft-model")


@dataclass(frozen=True, slots=True)
class Served:
    """What a program that is started serves, and how long it may take for what (in seconds)."""

    model_path: Path
    num_context: int
    num_threads: int
    num_slots: int = 1
    start_s: float = 300.0
    grace_s: float = 5.0
    idle_s: float = 1.0


_WATCH = 'read -r _; kill -TERM "-$1"; sleep 5; kill -KILL "-$1"'
"""Ends a process group once nobody holds the other end of its input any more."""


class LlamaServer:
    """The process; `start` and `stop` it."""

    def __init__(self, name: str, program: Sequence[str], served: Served) -> None:
        """`program` is a path and the flags behind it."""
        self._name = name
        self._program = tuple(program)
        self._served = served
        self._process: subprocess.Popen[bytes] | None = None
        self._watch: subprocess.Popen[bytes] | None = None
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `stop`
        self._stopping = threading.Lock()

    @property
    def about(self) -> str:
        """The program and its flags."""
        path, *flags = self._program
        return shlex.join([Path(path).name, *flags])

    def start(self) -> str:
        """Start it and wait until it is ready; returns its URL. Raises PeerError."""
        path, *flags = self._program
        port = free_port()
        served = self._served
        command = [str(Path(path).expanduser()), "-m", str(served.model_path)]
        command += ["--host", "127.0.0.1", "--port", str(port), "-c", str(served.num_context)]
        command += ["-t", str(served.num_threads), "-np", str(served.num_slots), *flags]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            problem = f"{self._name} cannot be started: {path}: {error.strerror or error}"
            raise PeerError("unreachable", problem, "check the path") from error
        self._watch = subprocess.Popen(
            ["/bin/sh", "-c", _WATCH, "sh", str(self._process.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._wait_until_healthy(f"http://127.0.0.1:{port}", self._process)
        return f"http://127.0.0.1:{port}"

    def check_drafting(self, heard: Heard) -> None:
        """Raise PeerError where it was given a model to draft with and has drafted nothing.

        llama-server loads such a model, and goes on without it where `--spec-type` does not name it
        or the vocabularies differ.
        """
        if not any(flag in _DRAFT_MODEL for flag in self._program):
            return
        if heard.timings is None or not heard.timings.draft_n:
            said = [line for line in self._lines() if "draft" in line or "spec" in line]
            raise PeerError(
                "refused",
                f"{self._name} does not draft with these flags{_shown(said[-1:])}",
                "its drafter needs --spec-type draft-simple and the target's vocabulary",
            )

    def idle_notes(self) -> Iterator[str]:
        """What is to be said of what it does while nobody asks: it would slow the others."""
        time.sleep(self._served.idle_s)  # threads may wait a moment for more before they sleep
        before = self._used_s()
        time.sleep(self._served.idle_s)
        share = (self._used_s() - before) / self._served.idle_s
        if share > _BUSY:
            yield f"uses {100 * share:.0f} % of a core while nobody asks"

    def last_words(self) -> str:
        """The end of its output if it has ended, else ""."""
        process = self._process
        with contextlib.suppress(subprocess.TimeoutExpired):
            if process is not None:
                process.wait(_POLL_S)
        if process is None or process.returncode is None:
            return ""
        return f"it ended with status {process.returncode}{_shown(self._complaints())}"

    def stop(self) -> None:
        """End it and all that it started, kindly first; from any thread, and more than once."""
        with self._stopping:
            process, watch = self._process, self._watch
            if watch is not None:
                watch.kill()
                watch.communicate()
            if process is not None and not self._output.closed:
                self._signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(self._served.grace_s)
                self._signal(signal.SIGKILL)
                process.wait()
            self._output.close()

    def _wait_until_healthy(self, url: str, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self._served.start_s
        with httpx2.Client(timeout=2.0, trust_env=False) as client:
            while time.monotonic() < deadline:
                if process.poll() is not None:
                    problem = f"{self._name} could not start: {self.last_words()}"
                    raise PeerError("unreachable", problem, "check its flags")
                with contextlib.suppress(httpx2.HTTPError):
                    if client.get(f"{url}/health").status_code == 200:
                        return
                time.sleep(_POLL_S)
        shown = _shown(self._complaints())
        problem = f"{self._name} was not ready after {self._served.start_s:g} s{shown}"
        raise PeerError("late", problem, "check its flags")

    def _used_s(self) -> float:
        """Processor time that it and its children have used."""
        if self._process is None:
            return 0.0
        used = 0.0
        with contextlib.suppress(psutil.Error):
            leader = psutil.Process(self._process.pid)
            for each in (leader, *leader.children(recursive=True)):
                used += sum(each.cpu_times()[:2])
        return used

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    def _complaints(self) -> list[str]:
        """The last lines of its output that tell of an error; of any kind where none does."""
        lines = self._lines()
        return ([line for line in lines if "error" in line.lower()] or lines)[-_NUM_LINES:]

    def _lines(self) -> list[str]:
        """The last lines of its output that hold something; none once it was stopped."""
        with self._stopping:
            if self._output.closed:
                return []
            size = os.fstat(self._output.fileno()).st_size
            end = os.pread(self._output.fileno(), 1 << 16, max(size - (1 << 16), 0))
        lines = map(str.strip, end.decode("utf-8", "replace").splitlines())
        return [line for line in lines if line]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _shown(lines: Sequence[str]) -> str:
    """Lines of a program's output behind a problem, in one line."""
    text = " / ".join(lines)
    text = "".join(c if c.isprintable() else " " for c in text)
    return f": {text[-_MOST_SHOWN:]}" if text else ""
