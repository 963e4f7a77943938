"""Running other programs: output to a log, progress to people, nothing left behind on Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from bootstrap.errors import failure

_STEP = re.compile(r"^\s*\[\s*(?:(\d+)/(\d+)|(\d+)%)\]")
_STOP_SECONDS = 5.0


def build_percent(line: str) -> int | None:
    """How far a build is, from a line of Ninja or Make; None if the line does not tell.

    >>> build_percent("[12/88] Building CXX object"), build_percent("[ 40%] Linking")
    (13, 40)
    """
    match = _STEP.match(line)
    if match is None:
        return None
    if match[3]:
        return int(match[3])
    return int(match[1]) * 100 // max(int(match[2]), 1)


@dataclass(frozen=True, slots=True)
class Result:
    """Exit status (negative: killed by that signal) and the whole output of a program."""

    status: int
    output: str


class Console:
    """What people see, on stderr: one line a step, a percentage that moves on a terminal."""

    def __init__(self, stream: TextIO) -> None:
        """`stream` takes the text; it is asked once whether it is a terminal."""
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._open_line = ""

    def say(self, text: str) -> None:
        """Print one line."""
        self.close()
        print(f"edgespec: {text}", file=self._stream, flush=True)

    def percent(self, what: str, percent: int) -> None:
        """Show how far `what` is; does nothing unless the stream is a terminal."""
        line = f"edgespec: {what}: {percent} %"
        if self._is_terminal and line != self._open_line:
            print(f"\r\x1b[2K{line}", end="", file=self._stream, flush=True)
            self._open_line = line

    def close(self) -> None:
        """End a line that a percentage left open."""
        if self._open_line:
            print(file=self._stream, flush=True)
            self._open_line = ""


class Runner:
    """Runs programs one after the other, each in a process group that never outlives the call."""

    def __init__(self, log: Path, console: Console) -> None:
        """`log` is a file that every program's output is appended to."""
        self._log = log
        self._console = console

    def run(
        self,
        command: Sequence[str | Path],
        env: Mapping[str, str],
        on_line: Callable[[str], None] | None = None,
    ) -> Result:
        """Run `command` to its end; raises OSError if it cannot be started."""
        lines: list[str] = []
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("a", encoding="utf-8") as log:
            print("$", *command, file=log, flush=True)
            with _start(command, env) as child:
                assert child.stdout is not None
                try:
                    for line in child.stdout:
                        lines.append(line)
                        log.write(line)
                        if on_line is not None:
                            on_line(line)
                    return Result(child.wait(), "".join(lines))
                except BaseException:  # an interrupt too must leave no compiler running
                    _stop(child)
                    raise

    def require(self, what: str, command: Sequence[str | Path], env: Mapping[str, str]) -> str:
        """Run a step that must succeed and return its output; raises BootstrapError."""

        def show(line: str) -> None:
            percent = build_percent(line)
            if percent is not None:
                self._console.percent(what, percent)

        result = self.run(command, env, show)
        self._console.close()
        if result.status != 0:
            raise failure(what, result.output, self._log)
        return result.output


def _start(command: Sequence[str | Path], env: Mapping[str, str]) -> subprocess.Popen[str]:
    """Start a program in a process group of its own, its errors among its output."""
    return subprocess.Popen(
        [str(part) for part in command],
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )


def _stop(child: subprocess.Popen[str]) -> None:
    """End a child and all that it started: first asked, then made to."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(child.pid, number)
            child.wait(_STOP_SECONDS)


def stderr_console() -> Console:
    """The console of the running process."""
    return Console(sys.stderr)
