"""What the host costs against the native library in the same process, on a tiny generated model.

    PYTHONPATH=tests/support python research/host_cost.py

Of each time the median and, for machines that are not quiet, the least of all rounds. Chunks: the
same answer streamed both ways in turns, in one process; its time by the number of its chunks.
Memory: proportional set sizes of `edgespec run` in the middle of an answer, host and parent,
against the same command with the library inside. Start: wall time of `edgespec run` for one token,
both ways in turns. First frame: from the start of `edgespec chat` to the first drawing of the
input box, in a pseudo-terminal.
"""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from fcntl import ioctl
from pathlib import Path

from tiny_models import TinySpec, write_tiny_model

from edgespec.paths import Paths
from edgespec.protocols import Completer
from edgespec.runtime.host import Host
from edgespec.runtime.request import LoadRequest
from edgespec.runtime.running import load
from edgespec.types import CompletionRequest

COMMAND = Path(sys.executable).with_name("edgespec")
INSIDE = """
import contextlib, sys
import edgespec.cli.run as run
from edgespec.cli.loading import load_completer
from edgespec.cli.main import main

@contextlib.contextmanager
def inside(options, sampling):
    with load_completer(options, sampling) as loaded:
        yield loaded.completer

run.loaded_host = inside
main(sys.argv[1:])
"""
"""`edgespec` with the library in its own process, as it was before there was a host."""

WAYS = {"host": [str(COMMAND)], "inside": [sys.executable, "-c", INSIDE]}
PICKS: dict[str, Callable[[Sequence[float]], float]] = {"median": statistics.median, "least": min}
NUM_ROUNDS = 25
NUM_TOKENS = 400


def main() -> None:
    """Measure all four and print them."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        model = write_tiny_model(home / "tiny.gguf", TinySpec(repetitive=True))
        slow = write_tiny_model(home / "slow.gguf", TinySpec(width=512, num_layers=8, seed=1))
        environment = {**os.environ, "EDGESPEC_HOME": folder}
        measure_chunks(home, model)
        measure_start(model, environment)
        measure_memory(slow, environment)
        measure_first_frame(model, environment)


def measure_chunks(home: Path, model: Path) -> None:
    """Milliseconds per chunk, one token each."""
    paths = Paths(home, home)
    options = LoadRequest(drafter="none", num_threads=1, remember=False)
    with Host(paths) as host, load(options, model, paths, lambda _line: None) as loaded:
        host.load(options, model, lambda _line: None)
        times: dict[str, list[float]] = {"host": [], "inside": []}
        for _ in range(NUM_ROUNDS):
            times["host"].append(ms_per_chunk(host))
            times["inside"].append(ms_per_chunk(loaded.completer))
        round_trips = []
        for token in range(200):
            started = time.perf_counter()
            host.decode_token(token)
            round_trips.append((time.perf_counter() - started) * 1e3)
    for name, pick in PICKS.items():
        host_ms, inside_ms = pick(times["host"]), pick(times["inside"])
        more_ms = host_ms - inside_ms
        print(f"chunk, {name}: host {host_ms:.3f} ms, inside {inside_ms:.3f} ms: {more_ms:+.3f} ms")
        print(f"round trip of one question, {name}: {pick(round_trips):.3f} ms")


def ms_per_chunk(completer: Completer) -> float:
    """Time of an answer over the number of its chunks."""
    request = CompletionRequest("hello", max_tokens=NUM_TOKENS, speculate=False)
    started = time.perf_counter()
    num_chunks = sum(1 for _ in completer.answer(request))
    return (time.perf_counter() - started) * 1e3 / num_chunks


def measure_start(model: Path, environment: dict[str, str]) -> None:
    """Seconds of a whole command for one token."""
    times: dict[str, list[float]] = {"host": [], "inside": []}
    arguments = ["run", "--model", str(model), "--threads", "1", "--max-tokens", "1", "hello"]
    for _ in range(NUM_ROUNDS + 1):
        for way, command in WAYS.items():
            started = time.perf_counter()
            subprocess.run(
                [*command, *arguments], env=environment, check=True, stdout=subprocess.DEVNULL
            )
            times[way].append(time.perf_counter() - started)
    for name, pick in PICKS.items():
        host_s, inside_s = pick(times["host"][1:]), pick(times["inside"][1:])
        more_s = host_s - inside_s
        print(f"start, {name}: host {host_s:.3f} s, inside {inside_s:.3f} s: {more_s:+.3f} s")


def measure_memory(model: Path, environment: dict[str, str]) -> None:
    """MB of all processes of a command in the middle of an answer."""
    arguments = ["run", "--model", str(model), "--threads", "1", "hello"]
    used = {}
    for way, command in WAYS.items():
        process = subprocess.Popen(
            [*command, *arguments], env=environment, stdout=subprocess.PIPE, text=False
        )
        assert process.stdout is not None
        os.read(process.stdout.fileno(), 1)
        used[way] = [pss_mb(pid) for pid in (process.pid, *children_of(process.pid))]
        process.send_signal(signal.SIGINT)
        process.communicate()
    more = sum(used["host"]) - sum(used["inside"])
    print(f"memory: host {used['host']} MB, inside {used['inside']} MB: {more:+.1f} MB")


def pss_mb(pid: int) -> float:
    """Proportional set size."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return round(int(line.split()[1]) / 1024, 1)
    raise ValueError("no Pss")


def children_of(pid: int) -> list[int]:
    """Process ids."""
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    )
    rows = [line.split(None, 2) for line in listed.stdout.splitlines()]
    return [int(row[0]) for row in rows if int(row[1]) == pid and "host_child" in row[2]]


def measure_first_frame(model: Path, environment: dict[str, str]) -> None:
    """Seconds from the start of a chat to its input box, and to the model being ready."""
    times = []
    for _ in range(NUM_ROUNDS):
        with chat(model, environment) as (leader, started):
            times.append((until(leader, b"F1 help", started), until(leader, b"ready", started)))
    frames_s, readies_s = zip(*times, strict=True)
    for name, pick in PICKS.items():
        print(f"chat, {name}: first frame {pick(frames_s):.3f} s, ready {pick(readies_s):.3f} s")


@contextlib.contextmanager
def chat(model: Path, environment: dict[str, str]) -> Iterator[tuple[int, float]]:
    """A chat in a pseudo-terminal, and when it was started."""
    leader, follower = pty.openpty()
    ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    started = time.perf_counter()
    process = subprocess.Popen(
        [COMMAND, "chat", "--model", str(model), "--threads", "1"],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env={**environment, "TERM": "xterm-256color"},
        start_new_session=True,
    )
    os.close(follower)
    try:
        yield leader, started
    finally:
        os.write(leader, b"\x11")
        while process.poll() is None:
            if select.select([leader], [], [], 0.01)[0]:
                with contextlib.suppress(OSError):
                    os.read(leader, 65536)
        os.close(leader)


def until(leader: int, text: bytes, started: float) -> float:
    """Seconds until `text` is drawn."""
    written = b""
    while text not in written:
        written += os.read(leader, 65536)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
