"""What a host gives back to the system."""

from __future__ import annotations

import subprocess
import sys

import pytest

from edgespec.runtime.host_process import environment

LETS_GO = """
from pathlib import Path

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

size = int("8000000")  # no constant, which would be kept
len(b"x" * 2 * size)  # glibc takes such sizes for usual from here on
before, kept, let_go = resident(), [], []
for _ in range(10):
    let_go.append(b"x" * size)
    kept.append(b"x" * (size // 80))
let_go.clear()
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_cells_of_conversations_that_were_let_go_are_given_back() -> None:
    command = [sys.executable, "-c", LETS_GO]
    grown = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    assert int(grown.stdout) < 16_000_000
