"""What is told of a pair's memory is what a process that loads it comes to hold."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from edgespec.machine.available import available_memory

CHILD = """
import json, sys
from pathlib import Path

import psutil

from edgespec.runtime.running import load
from edgespec.runtime.target import context_options
from edgespec.runtime.form import Form
from edgespec.runtime.request import LoadRequest
from edgespec.runtime.fit import MemoryRoom
from edgespec.gguf.file import GgufFile
from edgespec.machine.memory_need import memory_need
from edgespec.paths import Paths
from edgespec.types import CompletionRequest


def held():
    found = psutil.Process().memory_info()
    return found.rss - found.shared, found.shared


target, drafter, folder = map(Path, sys.argv[1:])
options = LoadRequest(
    drafter="named", drafter_path=drafter, trim=False, remember=False, learn=False
)
own, shared = held()
lines = []
with load(options, target, Paths(folder, folder), lines.append) as loaded:
    request = CompletionRequest("The sea is salty because " * 80, max_tokens=8)
    for _ in loaded.completer.answer(request):
        pass
    context = context_options(options, loaded.model, loaded.facts, loaded.machine)
    room = MemoryRoom(None, loaded.model, context, loaded.facts.max_rows)
    now_own, now_shared = held()
    need = memory_need(GgufFile(target), context, loaded.facts.max_rows)
print(json.dumps({
    "own": now_own - own,
    "files": now_shared - shared,
    "weights": need.weights + memory_need(GgufFile(drafter), context, 1).weights,
    "needed": need.total,
    "told": [line for line in lines if line.startswith("loading the drafter")],
    "served": loaded.completer.model.drafter,
    "both": room.fit(Form(drafter)).num_bytes,
}))
"""


def test_the_estimate_is_what_a_process_holds(
    target_path: Path, drafter_path: Path, tmp_path: Path
) -> None:
    """Weights are its own where they were copied into another layout, and else pages of the file.

    Both are counted once by the estimate, so that lies between what is the process's own and that
    with all pages of both files; and it is near the first and all weights that were not copied.
    """
    command: list[str | Path] = [sys.executable, "-c", CHILD, target_path, drafter_path, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["served"].endswith(f"+{drafter_path.stem}")
    assert found["both"] > found["needed"] > found["weights"] * 0.9
    # Without a byte of the weights, and with all of them twice.
    assert found["own"] * 0.95 < found["both"] < (found["own"] + found["files"]) * 1.05
    (line,) = found["told"]
    assert f"both models take about {found['both'] / 1e9:.1f} GB of memory, " in line


def test_this_machine_tells_what_it_has() -> None:
    found = available_memory()
    assert found is not None
    assert found > 100_000_000
