"""How long a first start takes: from the command to the first token, in a home where all is new.

    python research/first_start.py EDGESPEC MODELS [BUSY]

EDGESPEC is the command of the version to be measured, MODELS a folder of model files, which are
linked into each new home; BUSY processes (0) keep the machine busy meanwhile. Prints, for a first
start and two more in the same home, seconds until the first token and until the end; and for the
version that runs this program the seconds from the moment when the weights are loaded to the first
token, in another new home.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROMPT = "Why is the sea salty? Answer in three sentences."
NUM_TOKENS = 60
NUM_STARTS = 3


@contextlib.contextmanager
def new_home(models: Path) -> Iterator[Path]:
    """A home with links to the model files."""
    with tempfile.TemporaryDirectory(prefix="first-start-") as name:
        home = Path(name)
        (home / "models").mkdir()
        for file in models.iterdir():
            (home / "models" / file.name).symlink_to(file)
        yield home


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that compute without end."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def seconds_of(command: Path, home: Path) -> tuple[float, float]:
    """Until the first token, and until the command's end."""
    environment = {**os.environ, "EDGESPEC_HOME": str(home)}
    arguments = [str(command), "run", "--max-tokens", str(NUM_TOKENS), PROMPT]
    started = time.perf_counter()
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        os.read(process.stdout.fileno(), 1)
        first = time.perf_counter() - started
        process.stdout.read()
    return first, time.perf_counter() - started


def seconds_after_load(home: Path) -> tuple[float, float]:
    """Of the load, and from there to the first token, in this process."""
    from edgespec.llama.model import Model
    from edgespec.models.registry import DEFAULT_TARGET
    from edgespec.models.store import ModelStore
    from edgespec.paths import Paths
    from edgespec.runtime import target
    from edgespec.runtime.request import BEST_DRAFTER, LoadRequest
    from edgespec.runtime.running import load
    from edgespec.types import CompletionRequest, Message

    loaded: list[float] = []

    class Timed(Model):
        def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401
            super().__init__(*arguments, **options)
            loaded.append(time.perf_counter())

    loading: Any = target
    loading.Model = Timed
    paths = Paths(home, home / "cache")
    stored = ModelStore(paths).find(DEFAULT_TARGET)
    assert stored is not None
    started = time.perf_counter()
    request = LoadRequest(drafter=BEST_DRAFTER)
    with load(request, stored.path, paths, lambda _line: None) as running:
        asked = CompletionRequest((Message("user", PROMPT),), max_tokens=2)
        next(iter(running.completer.answer(asked)))
        return loaded[0] - started, time.perf_counter() - loaded[0]


def main(command: Path, models: Path, num_busy: int) -> None:
    """Measure and print."""
    with busy(num_busy):
        with new_home(models) as home:
            for number in range(1, NUM_STARTS + 1):
                first, end = seconds_of(command, home)
                print(f"start {number}: first token after {first:.2f} s, end after {end:.2f} s")
        if command.resolve().parent == Path(sys.executable).parent.resolve():
            with new_home(models) as home:
                load_s, first_s = seconds_after_load(home)
                print(f"weights after {load_s:.2f} s, first token {first_s:.2f} s after them")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) == 4 else 0)
