"""What others leave: memory (what the system has, limits of control groups), and how busy it is."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
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
