"""Repeat faults of the token database through the real command, and count what they cost.

    python research/repeat_faults.py MODEL.gguf COUNT [bytes|lock|read-only|clock ...]

A home of its own gets a few answers, the last backup being from halfway; then each fault is
repeated COUNT times, every time over a copy of what was there. Wrong is: an answer that differs or
fails, more than one line about it, a traceback, or earlier answers that are gone afterwards (for
flipped bytes: any that the backup has, after `edgespec db check --repair`). `read-only` mounts a
small file system and needs root, `clock` needs libfaketime (LIBFAKETIME tells its path).
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

PROMPTS = tuple(
    f"Write {how} about the {what}."
    for how in ("two sentences", "a short story", "a letter")
    for what in ("sea", "moon", "harbour", "bread", "library", "snow", "violin", "market")
)
NUM_TOKENS = 400
ASKED = PROMPTS[2]


@dataclass
class Home:
    """A folder of EdgeSpec's, and the model that answers from it."""

    folder: Path
    model: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def database(self) -> Path:
        """The file that suffers."""
        return self.folder / "edgespec.db"

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One command, as a process."""
        environment = {**os.environ, **self.environment, "EDGESPEC_HOME": str(self.folder)}
        command = [sys.executable, "-m", "edgespec", *arguments]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=1800, check=False
        )

    def ask(self, prompt: str) -> subprocess.CompletedProcess[str]:
        """A greedy answer."""
        options = ("--model", str(self.model), "--drafter", "context", "--temperature", "0")
        return self.run("run", *options, "--max-tokens", str(NUM_TOKENS), prompt)

    def recorded(self) -> Counter[float]:
        """How many tokens are recorded of each answer, told by its time."""
        found: Counter[float] = Counter()
        for line in map(json.loads, self.run("db", "export").stdout.splitlines()):
            if "sequence" in line:
                found[line["created"]] += len(line["sequence"])
        return found


def flipped(home: Home, stream: random.Random) -> Iterator[None]:
    """Some bytes anywhere are not what they were."""
    content = bytearray(home.database.read_bytes())
    start, size = stream.randrange(len(content)), stream.choice((1, 16, 4096))
    for place in range(start, min(start + size, len(content))):
        content[place] ^= stream.randrange(1, 256)
    home.database.write_bytes(content)
    yield
    home.run("db", "check", "--repair")


def locked(home: Home, stream: random.Random) -> Iterator[None]:
    """Another process holds a lock from some moment on, for some time."""
    how = stream.choice(("IMMEDIATE", "EXCLUSIVE"))
    starts_s, lasts_s = stream.uniform(0.0, 1.5), stream.choice((0.2, 1.0, 15.0))
    is_over = threading.Event()

    def hold() -> None:
        is_over.wait(starts_s)
        connection = sqlite3.connect(home.database, isolation_level=None, timeout=10.0)
        with contextlib.closing(connection):
            connection.execute(f"BEGIN {how}")
            is_over.wait(lasts_s)

    holder = threading.Thread(target=hold)
    holder.start()
    yield
    is_over.set()
    holder.join()


def read_only(home: Home, _stream: random.Random) -> Iterator[None]:
    """The folder cannot be written to."""
    kept = home.folder.with_name("kept")
    shutil.copytree(home.folder, kept)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(home.folder)]
    subprocess.run(mount, check=True)
    try:
        shutil.copytree(kept, home.folder, dirs_exist_ok=True)
        subprocess.run(["mount", "-o", "remount,ro", str(home.folder)], check=True)
        yield
    finally:
        subprocess.run(["umount", str(home.folder)], check=True)
        shutil.rmtree(kept)


def turned_back(home: Home, stream: random.Random) -> Iterator[None]:
    """The clock is some days behind what was recorded."""
    library = os.environ["LIBFAKETIME"]
    behind = stream.choice((1, 30, 4000))
    home.environment = {"LD_PRELOAD": library, "FAKETIME": f"-{behind}d"}
    yield
    home.environment = {}


FAULTS: dict[str, Callable[[Home, random.Random], Iterator[None]]] = {
    "bytes": flipped,
    "lock": locked,
    "read-only": read_only,
    "clock": turned_back,
}


def repeat(
    name: str, filled: Home, expected: str, count: int, backed_up: Counter[float]
) -> Counter[str]:
    """Cause a fault so many times; what happened, with the wrong in capitals."""
    before = filled.recorded()
    least = backed_up if name == "bytes" else before
    found: Counter[str] = Counter()
    stream = random.Random(name)
    for _ in range(count):
        with tempfile.TemporaryDirectory() as place:
            home = Home(Path(place) / "home", filled.model)
            shutil.copytree(filled.folder, home.folder)
            with contextlib.contextmanager(FAULTS[name])(home, stream):
                answer = home.ask(ASKED)
            if answer.returncode or answer.stdout != expected:
                found["ANSWER FAILED OR DIFFERS"] += 1
            lines = answer.stderr.count("\n")
            found["WORDY" if lines > 1 else "told in a line" if lines else "in silence"] += 1
            if "Traceback" in answer.stderr:
                found["TRACEBACK"] += 1
            after = home.recorded()
            num_lost = (before - after).total()
            lost = f" (but for {num_lost} of {before.total()} tokens)" if num_lost else ""
            what = "earlier answers kept" if least <= after else "EARLIER ANSWERS LOST"
            found[what + lost] += 1
    return found


def fill(home: Home) -> tuple[str, Counter[float]]:
    """Ask everything, ASKED once more; its answer, and what is in the backup from halfway."""
    half = len(PROMPTS) // 2
    for prompt in PROMPTS[:half]:
        home.ask(prompt)
    backed_up = home.recorded()
    backup = max(home.folder.glob("*.backup-*"))
    content = backup.read_bytes()
    for prompt in PROMPTS[half:]:
        home.ask(prompt)
    expected = home.ask(ASKED).stdout
    for later in home.folder.glob("*.backup-*"):
        later.unlink()
    backup.write_bytes(content)
    with contextlib.closing(sqlite3.connect(home.database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return expected, backed_up


def main(model: Path, count: int, names: list[str]) -> None:
    """Fill a home, then repeat; prints a line for each fault."""
    with tempfile.TemporaryDirectory() as place:
        filled = Home(Path(place) / "filled", model)
        filled.folder.mkdir()
        expected, backed_up = fill(filled)
        for name in names:
            started = time.monotonic()
            found = repeat(name, filled, expected, count, backed_up)
            told = ", ".join(f"{number} {what}" for what, number in found.most_common())
            print(f"{name}: {told} ({time.monotonic() - started:.0f} s)", flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:] or list(FAULTS))
