"""What this machine is, as far as speed and exactness depend on it."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

BUILD_RECORD = "edgespec-build.json"
"""File in the environment's folder in which `make setup` says how it built the library."""

_READ_BYTES, _LEAST_PART = 1 << 29, 1 << 27
"""Of the buffer that is read, and at least of each thread's part."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The CPU and its memory; `key` changes when measurements must be repeated."""

    cpu: str
    features: str
    num_threads: int
    memory_bytes: int
    system: str

    @property
    def key(self) -> str:
        """Names CPU, its features and the number of threads, in 16 hexadecimal digits."""
        text = f"{self.cpu}|{self.features}|{self.num_threads}|{self.system}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def this_machine(num_threads: int | None = None) -> Machine:
    """The machine that this process runs on, with so many threads if not one a physical core."""
    machine = _found()
    return machine if num_threads is None else replace(machine, num_threads=num_threads)


@lru_cache(maxsize=1)
def _found() -> Machine:
    name, features = _cpu()
    return Machine(
        cpu=name,
        features=features,
        num_threads=_num_physical_cores(),
        memory_bytes=_memory_bytes(),
        system=f"{platform.system()}-{platform.machine()}",
    )


def build_record() -> dict[str, Any]:
    """What `make setup` tells of how it built the library; empty if somebody else did."""
    try:
        value = json.loads((Path(sys.prefix) / BUILD_RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def read_bandwidth(num_threads: int, seconds: float = 0.3) -> float:
    """Bytes per second that `num_threads` threads read from memory, as passes read weights.

    Each compares two equal halves of its own part of a buffer far larger than any cache, by the C
    library's `memcmp`, which only reads, in order and by vectors. No pass over as many threads can
    read faster, since it computes besides. The best of the comparisons that fit into the time.
    """
    part = max(_READ_BYTES // num_threads, _LEAST_PART)
    buffer = np.ones((num_threads, 2, part // 2), dtype=np.uint8)  # written, so that it is there
    compare = ctypes.CDLL(None).memcmp  # which lets other threads of Python run meanwhile
    compare.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    halves = [[half.ctypes.data for half in each] for each in buffer]
    best = 0.0
    deadline = time.perf_counter() + seconds
    with ThreadPoolExecutor(num_threads) as pool:
        while best == 0.0 or time.perf_counter() < deadline:
            started = time.perf_counter()
            list(pool.map(lambda pair: compare(*pair, part // 2), halves))
            best = max(best, buffer.nbytes / (time.perf_counter() - started))
    return best


def _cpu() -> tuple[str, str]:
    """Model name and feature flags."""
    if platform.system() == "Darwin":
        return _sysctl("machdep.cpu.brand_string"), _sysctl("hw.optional")
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine(), ""
    facts = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    flags = facts.get("flags") or facts.get("Features") or ""
    return facts.get("model name") or platform.machine(), " ".join(sorted(flags.split()))


def _num_physical_cores() -> int:
    """Cores that this process may use, hyper-threads of one core counted once."""
    if platform.system() == "Darwin":
        fast = _sysctl("hw.perflevel0.physicalcpu") or _sysctl("hw.physicalcpu")
        return int(fast) if fast.isdigit() else os.cpu_count() or 1
    try:
        allowed = os.sched_getaffinity(0)
        siblings = {
            Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
            for cpu in allowed
        }
        return max(len(siblings), 1)
    except (OSError, AttributeError):
        return os.cpu_count() or 1


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return 0


def _sysctl(name: str) -> str:
    try:
        done = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()
