"""How a host died, in the words of a person."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgespec.errors import HostDied

_REMEDY = "ask again, and it starts anew"
_CRASHES = {
    signal.SIGABRT: "it gave up",
    signal.SIGSEGV: "it crashed on a wrong memory address",
    signal.SIGBUS: "it crashed on memory that is not there: was its file cut short?",
    signal.SIGFPE: "it crashed on a wrong calculation",
    signal.SIGILL: "it crashed on an instruction that this processor does not have",
}
_MOST_LETTERS = 160
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Death:
    """The end of a host process; `is_its_own` is False where others killed it."""

    problem: str
    remedy: str = _REMEDY
    pid: int | None = None
    is_its_own: bool = True

    def error(self) -> HostDied:
        """What to raise, anew for each who is told."""
        return HostDied(self.problem, self.remedy)

    def through_workers(self, gone: Sequence[str]) -> Death:
        """The end of a host over workers, of which `gone` are: no fault of its model file."""
        if not gone:
            return replace(self, is_its_own=False)
        problem = f"the worker {gone[0]} is gone: it cannot be reached any more"
        remedy = "start it again with `edgespec worker`, and ask again"
        return replace(self, problem=problem, remedy=remedy, is_its_own=False)

    @staticmethod
    def unborn(error: OSError) -> Death:
        """It could not be started."""
        return Death(
            f"the engine could not be started: {error.strerror or error}", "free memory, try again"
        )

    @staticmethod
    def of(pid: int, status: int, said: list[str], *, ran_out_of_memory: bool) -> Death:
        """`status` is the exit status, negative for a signal; `said` are its last lines."""
        number = -status if status < 0 else status - 128
        if number == signal.SIGKILL and ran_out_of_memory:
            return Death(
                "the engine was killed because memory ran out",
                "close other programs or use a smaller model or --context",
                pid,
            )
        if number in _CRASHES:
            reason = _reason(said) if number == signal.SIGABRT else ""
            cause = _CRASHES[signal.Signals(number)] + (f" ({reason})" if reason else "")
            return Death(f"the engine died: {cause}", _REMEDY, pid)
        if status < 0 or number == signal.SIGTERM:  # which it may have caught
            return Death(
                f"the engine was killed by {_name(number)}", _REMEDY, pid, is_its_own=False
            )
        reason = _reason(said)
        told = f"the engine ended (exit status {status}{f': {reason}' if reason else ''})"
        return Death(told, _REMEDY, pid)


def _reason(said: list[str]) -> str:
    """What the library or Python said last, in one line without colours and source folders."""
    last = said[-1] if said else ""
    bare = "".join(c for c in re.sub(r"\x1b\[[0-9;]*m", "", last) if c.isprintable())
    bare = re.sub(r"^/\S*/(?=[^/\s]+:\d+: )", "", bare)
    return bare if len(bare) <= _MOST_LETTERS else bare[: _MOST_LETTERS - 1] + "…"


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def num_killed_for_memory() -> int:
    """How many processes the kernel has killed for want of memory; 0 where it does not tell.

    In this process's control group, where that can be read, else on the whole machine.
    """
    for events in (*_event_files(), Path("/proc/vmstat")):
        try:
            counts = dict(line.split(maxsplit=1) for line in events.read_text().splitlines())
            return int(counts["oom_kill"])
        except (OSError, ValueError, KeyError):
            continue
    return 0


def _event_files() -> list[Path]:
    try:
        groups = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    names = [line.split(":", 2)[2].lstrip("/") for line in groups if line.startswith("0::")]
    return [_CGROUPS / name / "memory.events" for name in names]
