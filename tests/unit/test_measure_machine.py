"""The machine's description, and what makes its key change."""

from __future__ import annotations

import dataclasses
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edgespec.machine.identity import Machine, read_bandwidth, this_machine

SOME = Machine("Some CPU", "avx2 fma", 4, 1 << 33, "Linux-x86_64")


def test_this_machine_is_described() -> None:
    machine = this_machine()
    assert machine.cpu.strip() == machine.cpu != ""
    assert 1 <= machine.num_threads <= (os.cpu_count() or 1)
    assert machine.memory_bytes > 1 << 28
    assert machine.system.startswith(platform.system())
    assert this_machine() == machine


def test_what_the_kernel_says_of_cpu_and_memory_is_what_is_told() -> None:
    """On Linux two files of the kernel are another way to the same facts."""
    assert platform.system() in ("Linux", "Darwin")
    if platform.system() == "Linux":
        machine = this_machine()
        text = Path("/proc/cpuinfo").read_text()
        models = re.findall(r"^model name\s*: (.*)$", text, re.MULTILINE)
        assert machine.cpu == (models[0] if models else platform.machine())
        flags = re.findall(r"^(?:flags|Features)\s*: (.*)$", text, re.MULTILINE)
        assert sorted(machine.features.split()) == sorted(flags[0].split() if flags else [])
        (total,) = re.findall(r"^MemTotal:\s*(\d+) kB", Path("/proc/meminfo").read_text(), re.M)
        assert machine.memory_bytes == int(total) * 1024


def test_only_the_cores_that_may_be_used_count() -> None:
    """A process pinned to one CPU has one thread to offer."""
    code = (
        "import os\n"
        "pin = getattr(os, 'sched_setaffinity', None)\n"
        "if pin: pin(0, {min(os.sched_getaffinity(0))})\n"
        "from edgespec.machine.identity import this_machine\n"
        "print(this_machine().num_threads, bool(pin))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    threads, pinned = done.stdout.split()
    expected = 1 if pinned == "True" else this_machine().num_threads
    assert int(threads) == expected


def test_the_key_is_short_and_the_same_for_the_same_machine() -> None:
    assert re.fullmatch(r"[0-9a-f]{16}", SOME.key)
    assert dataclasses.replace(SOME).key == SOME.key
    # The same CPU with more memory computes the same numbers at the same speed.
    assert dataclasses.replace(SOME, memory_bytes=1 << 40).key == SOME.key


@pytest.mark.parametrize(
    "changed",
    [
        dataclasses.replace(SOME, cpu="Other CPU"),
        dataclasses.replace(SOME, features="avx2 avx512f fma"),
        dataclasses.replace(SOME, num_threads=5),
        dataclasses.replace(SOME, system="Darwin-arm64"),
    ],
    ids=["cpu", "features", "threads", "system"],
)
def test_the_key_changes_with_whatever_changes_speed_or_sums(changed: Machine) -> None:
    assert changed.key != SOME.key


@pytest.mark.parametrize("num_threads", [1, 2])
def test_what_is_read_is_counted_even_when_there_is_no_time(num_threads: int) -> None:
    """One pass at least; nothing that runs this reads less than 10 MB/s or more than 10 TB/s."""
    assert 1e7 < read_bandwidth(num_threads, seconds=0.0) < 1e13
