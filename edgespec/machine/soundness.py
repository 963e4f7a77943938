"""Is the native library sound? Asked in a child process, because the answer may be a crash.

Some compilers break llama.cpp's AMX path, and such a build dies on its first matrix product. The
child decodes a tiny generated model with the extra weight layouts (repacked, AMX) and without them.
If only the first crashes or gives nonsense, the layouts are switched off for this build; if both
do, the build cannot be used.

A verdict must come from the library alone. So a child runs in a session of its own, out of reach of
signals meant for a terminal's foreground; it is held by a pipe instead, which ends it when we end.
A child that others ended is asked once more, and if that happens again, nothing is remembered.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgespec.errors import Cancelled, NativeLibraryError

_TIMEOUT_S, _POLL_S = 60.0, 0.05
_FROM_OUTSIDE = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGHUP)
"""Sent by people, or by a system short of memory or shutting down; never by a bad build."""

_HELD_BACK = (signal.SIGINT, signal.SIGTERM)
"""Signals that wait while a child is started; it inherits that, and takes it back."""

_LARGEST_DIFFERENCE = 1.0
"""Logits of the tiny models spread over several units; layouts differ by rounding only."""


@dataclass(frozen=True, slots=True)
class Soundness:
    """What the child processes found; `findings` are sentences for a person.

    `is_final` is False if nothing was found out about the library: not to be remembered.
    """

    use_extra_buffers: bool
    findings: tuple[str, ...] = ()
    is_final: bool = True

    @staticmethod
    def from_json(value: dict[str, object]) -> Soundness | None:
        """Read back `to_json`, or None if it is not of that form."""
        use, findings = value.get("use_extra_buffers"), value.get("findings")
        if not isinstance(use, bool) or not isinstance(findings, list):
            return None
        return Soundness(use, tuple(map(str, findings)))

    def to_json(self) -> dict[str, object]:
        """As JSON values, for remembering; `is_final` goes without saying."""
        return {"use_extra_buffers": self.use_extra_buffers, "findings": self.findings}


@dataclass(frozen=True, slots=True)
class ChildReport:
    """One child's result: logits by model, or how it died and through whom.

    "time": it gave no answer in time, which may also mean that we were stopped meanwhile.
    """

    logits: list[list[float]] | None
    death: str = ""
    ended_by: Literal["itself", "time", "others"] = "itself"


def check_soundness(num_threads: int, is_stopped: Callable[[], bool] = lambda: False) -> Soundness:
    """Prove the library in two child processes; about a second.

    Raises NativeLibraryError when it cannot be used at all, Cancelled soon after `is_stopped`.
    """
    # Needs gguf, which takes long to import, and is seldom done.
    from edgespec.machine.check_models import write_check_models

    with tempfile.TemporaryDirectory(prefix="edgespec-") as folder:
        paths = write_check_models(Path(folder))
        plain = _ask(paths, num_threads, is_stopped, use_extra_buffers=False)
        if plain.ended_by == "others":
            raise NativeLibraryError(
                f"llama.cpp could not be checked: {plain.death}", "run the command again"
            )
        if plain.logits is None:
            raise NativeLibraryError(
                f"llama.cpp does not work on this machine: {plain.death}",
                "run `make setup` to build it for this machine",
            )
        fast = _ask(paths, num_threads, is_stopped, use_extra_buffers=True)
    return judge(plain.logits, fast)


def _ask(
    paths: list[Path], num_threads: int, is_stopped: Callable[[], bool], *, use_extra_buffers: bool
) -> ChildReport:
    """`run_child`, a second time if it was perhaps not the library that ended the first."""
    for _ in range(2):
        report = run_child(
            paths,
            use_extra_buffers=use_extra_buffers,
            num_threads=num_threads,
            is_stopped=is_stopped,
        )
        if report.ended_by == "itself":
            break
    return report


def judge(plain: list[list[float]], fast: ChildReport) -> Soundness:
    """Compare the run with extra weight layouts against the one without."""
    if fast.ended_by == "others":
        finding = f"fast weight layouts could not be checked ({fast.death}); off for this time"
        return Soundness(False, (finding,), is_final=False)
    advice = "they are switched off; `make setup` builds a sound library"
    if fast.logits is None:
        return Soundness(False, (f"fast weight layouts crash ({fast.death}); {advice}",))
    worst = max(
        abs(a - b) if a == a and b == b else float("inf")
        for left, right in zip(plain, fast.logits, strict=True)
        for a, b in zip(left, right, strict=True)
    )
    if worst > _LARGEST_DIFFERENCE:
        return Soundness(
            False, (f"fast weight layouts compute wrong numbers (off by {worst:.2g}); {advice}",)
        )
    return Soundness(True)


def run_child(
    paths: list[Path],
    *,
    use_extra_buffers: bool,
    num_threads: int,
    is_stopped: Callable[[], bool] = lambda: False,
) -> ChildReport:
    """Decode each model in a child process of this Python; raises Cancelled once `is_stopped`."""
    arguments = [str(int(use_extra_buffers)), str(num_threads), *map(str, paths)]
    command = [sys.executable, "-m", "edgespec.machine.soundness_child", *arguments]
    try:
        done = _run_tied(command, is_stopped)
    except subprocess.TimeoutExpired:
        return ChildReport(None, f"no answer within {_TIMEOUT_S:.0f} seconds", "time")
    except OSError as error:
        return ChildReport(None, f"the check could not be started: {error}", "others")
    if done.returncode < 0:
        death = f"killed by {_signal_name(-done.returncode)}"
        return ChildReport(None, death, "others" if -done.returncode in _FROM_OUTSIDE else "itself")
    try:
        logits = json.loads(done.stdout)
    except json.JSONDecodeError:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        return ChildReport(None, lines[-1] if lines else f"exit status {done.returncode}")
    return ChildReport(logits)


def _run_tied(
    command: list[str], is_stopped: Callable[[], bool]
) -> subprocess.CompletedProcess[bytes]:
    """Run a child in a session of its own whose stdin ends when this process does."""
    read_end, write_end = os.pipe()
    process = None
    try:
        with _held_back():
            process = subprocess.Popen(
                command,
                stdin=read_end,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        deadline = time.monotonic() + _TIMEOUT_S
        while True:
            try:
                stdout, stderr = process.communicate(timeout=_POLL_S)
                break
            except subprocess.TimeoutExpired:
                if is_stopped():
                    raise Cancelled from None
                if time.monotonic() > deadline:
                    raise
        return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)
    finally:
        os.close(read_end)
        os.close(write_end)
        if process is not None:
            with process:  # waits for its end
                process.kill()


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    """Let a signal raise its exception after this block: one between would lose the child."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
