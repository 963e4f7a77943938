"""Is the native library sound? Asked in a child process, because the answer may be a crash.

Some compilers break llama.cpp's AMX path, and such a build dies on its first matrix product. The
child decodes a tiny generated model with the extra weight layouts (repacked, AMX) and without them.
If only the first crashes or gives nonsense, the layouts are switched off for this build; if both
do, the build cannot be used.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from edgespec.errors import NativeLibraryError
from edgespec.llama.tiny import SELF_CHECK_SPECS, write_tiny_model

_TIMEOUT_S = 60.0
_LARGEST_DIFFERENCE = 1.0
"""Logits of the tiny models spread over several units; layouts differ by rounding only."""


@dataclass(frozen=True, slots=True)
class Soundness:
    """What the child processes found; `findings` are sentences for a person."""

    use_extra_buffers: bool
    findings: tuple[str, ...] = ()

    @staticmethod
    def from_json(value: dict[str, object]) -> Soundness | None:
        """Read back `to_json`, or None if it is not of that form."""
        use, findings = value.get("use_extra_buffers"), value.get("findings")
        if not isinstance(use, bool) or not isinstance(findings, list):
            return None
        return Soundness(use, tuple(map(str, findings)))

    def to_json(self) -> dict[str, object]:
        """As JSON values, for remembering."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ChildReport:
    """One child's result: logits by model, or how it died."""

    logits: list[list[float]] | None
    death: str = ""


def check_soundness(num_threads: int) -> Soundness:
    """Prove the library in two child processes; about a second.

    Raises NativeLibraryError when it cannot be used at all.
    """
    with tempfile.TemporaryDirectory(prefix="edgespec-") as folder:
        paths = [
            write_tiny_model(Path(folder) / f"{index}.gguf", spec)
            for index, spec in enumerate(SELF_CHECK_SPECS)
        ]
        plain = run_child(paths, use_extra_buffers=False, num_threads=num_threads)
        if plain.logits is None:
            raise NativeLibraryError(
                f"llama.cpp does not work on this machine: {plain.death}",
                "run `make setup` to build it for this machine",
            )
        fast = run_child(paths, use_extra_buffers=True, num_threads=num_threads)
    return judge(plain.logits, fast)


def judge(plain: list[list[float]], fast: ChildReport) -> Soundness:
    """Compare the run with extra weight layouts against the one without."""
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


def run_child(paths: list[Path], *, use_extra_buffers: bool, num_threads: int) -> ChildReport:
    """Decode each model in a child process of this Python."""
    arguments = [str(int(use_extra_buffers)), str(num_threads), *map(str, paths)]
    command = [sys.executable, "-m", "edgespec.measure.soundness_child", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return ChildReport(None, f"no answer within {_TIMEOUT_S:.0f} seconds")
    except OSError as error:
        return ChildReport(None, f"the check could not be started: {error}")
    if done.returncode < 0:
        return ChildReport(None, f"killed by {_signal_name(-done.returncode)}")
    try:
        logits = json.loads(done.stdout)
    except json.JSONDecodeError:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        return ChildReport(None, lines[-1] if lines else f"exit status {done.returncode}")
    return ChildReport(logits)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
