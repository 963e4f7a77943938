"""What others leave: memory (what the system has, limits of control groups), and how busy it is.

And where the power for work comes from that nobody waits for.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import psutil

MOST_SHARE = 0.95
"""Of what is available that models may take; the rest is for what other programs come to need."""

_CGROUP_FILES = (
    ("sys/fs/cgroup", "memory.max", "memory.current"),
    ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
)
"""Where limits, and what counts towards them, stand in control groups of version 2 and 1."""

_RECLAIMABLE = ("inactive_file", "active_file")


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that can be had without pushing out what others use; None if nobody can tell.

    Limits of the control groups that this process is in count as well; `root` is where the
    system's files are looked for.
    """
    limits = list(_left_in_groups(root))
    with contextlib.suppress(OSError, psutil.Error, NotImplementedError):  # not known to psutil
        limits.append(int(psutil.virtual_memory().available))
    return min(limits, default=None)


def _left_in_groups(root: Path) -> Iterator[int]:
    """What is left in each control group of this process and in those around it."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _number, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            mount, limit, usage = _CGROUP_FILES[controllers == "memory"]
            inner = root / mount / path.lstrip("/")
            for folder in (inner, *inner.parents):
                if (left := _left(folder, limit, usage)) is not None:
                    yield left
                if folder == root / mount:
                    break


def _left(folder: Path, limit: str, usage: str) -> int | None:
    """Limit less use, cached files aside; None where there is no limit."""
    try:
        most = int((folder / limit).read_text())  # "max" where there is none
        used = int((folder / usage).read_text())
        lines = (folder / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):
        return None
    facts = dict(line.split(" ", 1) for line in lines)
    prefix = "total_" if "total_inactive_file" in facts else ""
    return max(most - used + sum(int(facts.get(prefix + name, 0)) for name in _RECLAIMABLE), 0)


def load_average() -> float | None:
    """Processes that wanted to run in the last minute; None where the system does not count."""
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):
        return None


def is_on_battery() -> bool:
    """Whether the machine runs on a battery; False where nobody can tell."""
    with contextlib.suppress(OSError, ValueError, psutil.Error, NotImplementedError):
        battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
        return battery is not None and battery.power_plugged is False
    return False


class OthersMeter:
    """Tells how many cores others than this process keep busy, from one look to the next."""

    def __init__(
        self,
        busy_s: Callable[[], float | None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`busy_s` gives the seconds that all cores were busy so far, None if nobody can tell."""
        self._busy_s = busy_s or _busy_seconds
        self._clock = clock
        self._before: tuple[float, float] | None = None

    def look(self, own_s: float) -> float | None:
        """Cores that others kept busy since the last look; None at the first, or if unknown.

        `own_s` are the seconds of the processor that count as our own so far.
        """
        busy_s, now, before = self._busy_s(), self._clock(), self._before
        if busy_s is None:
            return None
        self._before = now, busy_s - own_s
        if before is None or now <= before[0]:
            return None
        return max(busy_s - own_s - before[1], 0.0) / (now - before[0])


def own_seconds(children: Iterable[int] = ()) -> float:
    """Seconds of the processor that this process took, with those of its `children` by number.

    Those of children that ended are counted as well, where the system tells them.
    """
    total = 0.0
    for number in (os.getpid(), *children):
        with contextlib.suppress(psutil.Error):
            total += sum(psutil.Process(number).cpu_times()[:4])
    return total


def _busy_seconds() -> float | None:
    try:
        times = psutil.cpu_times()
    except (OSError, psutil.Error, NotImplementedError):
        return None
    # What a guest takes is in `user` as well; what is stolen, other machines take.
    return float(sum(getattr(times, kind, 0.0) for kind in _BUSY))


_BUSY = ("user", "nice", "system", "irq", "softirq")
