"""What the chat costs, measured from outside in a pseudo-terminal of 100 x 30.

    python research/chat_figures.py EDGESPEC MODELS [start] [keys] [speed] [resize]

EDGESPEC is the command of the version to be measured, MODELS a folder of model files. Each home is
new, and settled by one answer. Printed are

    start    seconds from the command to the first frame, five starts, models loading behind it
    keys     ms from a key press to its letter on the screen while answers with lists, tables and
             code stream: median, 95th percentile, worst
    speed    tokens per second in the chat over those of `edgespec run`, the same prompts in turns,
             median of the ratios and 95 % interval by bootstrap
    resize   seconds until the screen is still after a window with 20 long answers was dragged over
             eight sizes, and the CPU seconds that took
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import random
import re
import select
import sqlite3
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

PROMPTS = (
    "Make a Markdown table of ten programming languages with year, author and paradigm.",
    "List twelve rules for clean code, each with a sentence and a short Python example.",
    "Write a Python class for a bank account with tests, in code fences, and explain it in a list.",
    "Compare lists, tuples, sets and dicts of Python in a table, then give code for each.",
    "Write a shell script that rotates log files, then explain each line in a numbered list.",
    "Give a table of the planets with mass, radius and moons, then a list of facts.",
)
MARKS = "ßþøđħłŋæœğşčžřůň"
"""Letters that no answer of these has: what is typed is found by them."""

NUM_TOKENS = 160
_QUIET_S = 0.3


class Chat:
    """A chat in a pseudo-terminal."""

    def __init__(self, command: Sequence[str], home: Path) -> None:
        self._leader, follower = pty.openpty()
        self.resize(100, 30)
        environment = {**os.environ, "EDGESPEC_HOME": str(home), "TERM": "xterm-256color"}
        self.started_at = time.perf_counter()
        self.process = subprocess.Popen(
            list(command),
            stdin=follower,
            stdout=follower,
            stderr=follower,
            env=environment,
            start_new_session=True,
            # Without a terminal that controls it, a change of size would send it no signal.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(follower)
        self.written = ""

    def resize(self, columns: int, lines: int) -> None:
        """Tell the program another size."""
        size = struct.pack("HHHH", lines, columns, 0, 0)
        fcntl.ioctl(self._leader, termios.TIOCSWINSZ, size)

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self._leader, keys.encode())

    def read(self, seconds: float) -> bool:
        """Take what was written; False if nothing came for so long."""
        if not select.select([self._leader], [], [], seconds)[0]:
            return False
        with contextlib.suppress(OSError):
            self.written += os.read(self._leader, 1 << 16).decode(errors="replace")
        return True

    def until(self, text: str, seconds: float = 120.0) -> float:
        """Wait until `text` was written since the last `forget`; the seconds that took."""
        began = time.perf_counter()
        while text not in plain(self.written):
            if time.perf_counter() - began > seconds:
                raise TimeoutError(f"no {text!r} in {plain(self.written)[-800:]!r}")
            self.read(0.05)
        return time.perf_counter() - began

    def forget(self) -> None:
        """What was written before does not count."""
        self.written = ""

    def until_still(self) -> float:
        """Wait until nothing is drawn any more; seconds until the last of it."""
        began = last = time.perf_counter()
        while self.read(_QUIET_S):
            last = time.perf_counter()
        return last - began

    def cpu_seconds(self) -> float:
        """What the process itself has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """Quit."""
        self.press("\x11")
        with contextlib.suppress(subprocess.TimeoutExpired):
            end = time.perf_counter() + 20
            while self.process.poll() is None and time.perf_counter() < end:
                self.read(0.05)
        self.process.kill()
        self.process.wait()
        os.close(self._leader)


def plain(text: str) -> str:
    """Without escape sequences."""
    return re.sub(r"\x1b(\[[0-9;?<>=$]*[a-zA-Z]|\][^\x07]*\x07|[()][A-Z0-9])", "", text)


@contextlib.contextmanager
def new_home(models: Path) -> Iterator[Path]:
    """A home with links to the model files."""
    with tempfile.TemporaryDirectory(prefix="chat-figures-") as name:
        home = Path(name)
        (home / "models").mkdir()
        for file in models.iterdir():
            (home / "models" / file.name).symlink_to(file)
        yield home


def answer(command: Path, home: Path, *options: str) -> None:
    """One answer by `run`, so that facts of the machine are there."""
    arguments = [str(command), "run", "--max-tokens", "20", *options, "Say hello."]
    subprocess.run(
        arguments, env={**os.environ, "EDGESPEC_HOME": str(home)}, check=True, capture_output=True
    )


def measure_start(command: Path, home: Path) -> None:
    """Print how long the first frame takes, and what the process has used by then."""
    seconds, used = [], []
    for _ in range(5):
        chat = Chat([str(command), "chat"], home)
        chat.until("Enter send")
        seconds.append(time.perf_counter() - chat.started_at)
        used.append(chat.cpu_seconds())
        chat.close()
    times = ", ".join(f"{each:.3f}" for each in sorted(seconds))
    print(f"start  first frame, s: {times}; CPU {statistics.median(used):.2f} s in the median")


def measure_keys(command: Path, home: Path) -> None:
    """Print how long keys take to the screen while answers stream."""
    chat = Chat([str(command), "chat", "--temperature", "0"], home)
    chat.until("ready")
    latencies: list[float] = []
    noise = random.Random(1)
    for prompt in PROMPTS:
        chat.forget()
        chat.press(f"{prompt}\r")
        chat.until("answering")
        end = time.perf_counter() + 6.0
        while time.perf_counter() < end and "ready" not in plain(chat.written)[-400:]:
            mark = noise.choice(MARKS)
            chat.forget()
            began = time.perf_counter()
            chat.press(mark)
            while mark not in chat.written and time.perf_counter() - began < 5:
                chat.read(0.002)
            latencies.append((time.perf_counter() - began) * 1e3)
            chat.press("\x7f")
            pause = time.perf_counter() + noise.uniform(0.05, 0.25)
            while time.perf_counter() < pause:
                chat.read(0.01)
        chat.press("\x1b")
        chat.until("ready")
        time.sleep(0.3)
    chat.close()
    latencies.sort()
    print(
        f"keys   {len(latencies)} presses, ms: median {statistics.median(latencies):.1f},"
        f" p95 {latencies[int(0.95 * len(latencies))]:.1f}, worst {latencies[-1]:.1f}"
    )


def rates(home: Path) -> list[float]:
    """Tokens per second of the answers that the chat kept, in their order."""
    with contextlib.closing(sqlite3.connect(home / "edgespec.db")) as connection:
        rows = connection.execute(
            "SELECT figures FROM messages WHERE role = 'assistant' ORDER BY id"
        )
        return [float(json.loads(row[0] or "{}").get("tokens_per_second", 0)) for row in rows]


RUN = """
import sys, time
from edgespec.paths import user_paths
from edgespec.runtime.host import Host
from edgespec.runtime.request import LoadRequest
from edgespec.types import CompletionRequest, Message, SamplingParams
with Host(user_paths()) as host:
    request = LoadRequest(drafter="auto", learn=False)
    host.load(request, user_paths().models / sys.argv[1], lambda line: None)
    num_idle = 0
    while num_idle < 10:  # drafters are weighed, for both sides, before anything is measured
        time.sleep(1)
        num_idle = 0 if host.insight().idle else num_idle + 1
    print("settled", flush=True)
    for line in sys.stdin:
        asked = CompletionRequest(
            (Message("user", line.strip()),), SamplingParams(), int(sys.argv[2]), reuse_prefix=False
        )
        for chunk in host.answer(asked):
            if chunk.text:
                print(end="", flush=True)
        print(chunk.completion.timings.decode_tokens_per_second, flush=True)
"""


def measure_speed(command: Path, home: Path) -> None:
    """Print tokens per second in the chat over those without a screen."""
    python = command.parent / "python"
    environment = {**os.environ, "EDGESPEC_HOME": str(home)}
    bare = subprocess.Popen(
        [str(python), "-P", "-c", RUN, "qwen2.5-coder-1.5b.gguf", str(NUM_TOKENS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert bare.stdin is not None
    assert bare.stdout is not None
    bare.stdout.readline()
    options = ["--temperature", "0", "--max-tokens", str(NUM_TOKENS), "--no-learn"]
    chat = Chat([str(command), "chat", *options], home)
    chat.until("ready")
    ratios = []
    noise = random.Random(2)
    for prompt in PROMPTS * 6:
        found: dict[str, float] = {}
        for way in noise.sample(["bare", "chat"], 2):
            if way == "bare":
                bare.stdin.write(prompt + "\n")
                bare.stdin.flush()
                found[way] = float(bare.stdout.readline())
                continue
            chat.press("\x0e")
            time.sleep(0.3)
            chat.forget()
            chat.press(f"{prompt}\r")
            chat.until("answering")
            chat.forget()
            while "ready" not in chat.written:
                chat.read(0.05)
            chat.until_still()
            found[way] = rates(home)[-1]
        ratios.append(found["chat"] / found["bare"])
    chat.close()
    bare.stdin.close()
    bare.wait()
    medians = sorted(statistics.median(noise.choices(ratios, k=len(ratios))) for _ in range(2000))
    print(
        f"speed  chat / run over {len(ratios)} pairs: {statistics.median(ratios):.3f}"
        f" [{medians[50]:.3f}, {medians[-51]:.3f}]"
    )


LONG = "\n\n".join(
    f"## Part {part}\n\nSome *words* about it, and **more** of them.\n\n"
    "- one\n- two\n  - three\n\n| a | b | c |\n|---|---|---|\n| 1 | 2 | 3 |\n| 4 | 5 | 6 |\n\n"
    "```python\ndef function(value: int) -> int:\n    return value + 1\n```\n"
    for part in range(12)
)


def measure_resize(command: Path, home: Path) -> None:
    """Print how long a dragged window takes."""
    python = command.parent / "python"
    program = (
        "import sys; from edgespec.paths import user_paths;"
        "from edgespec.runtime.history import open_history\n"
        "history = open_history(user_paths().database, print)\n"
        "chat = parent = None\n"
        "for number in range(20):\n"
        "    begun = history.begin(chat, parent, f'question {number}')\n"
        "    history.finish(begun.answer, sys.argv[1], 'done')\n"
        "    chat, parent = begun.chat, begun.answer\n"
        "print(chat)"
    )
    environment = {**os.environ, "EDGESPEC_HOME": str(home)}
    made = subprocess.run(
        [str(python), "-P", "-c", program, LONG],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    chat = Chat([str(command), "chat", "--continue", made.stdout.split()[-1]], home)
    chat.until("ready")
    chat.until_still()
    before, began = chat.cpu_seconds(), time.perf_counter()
    for step in range(8):
        chat.resize(100 - 5 * step, 30 + step)
        end = time.perf_counter() + 0.03
        while time.perf_counter() < end:
            chat.read(0.005)
    dragged = time.perf_counter() - began
    still = chat.until_still()
    print(
        f"resize still {dragged + still:.2f} s after the first of eight sizes ({dragged:.2f} s of"
        f" dragging), {chat.cpu_seconds() - before:.2f} s of CPU"
    )
    chat.close()


def main() -> None:
    """Measure what was asked for, or all of it."""
    command, models = Path(sys.argv[1]).absolute(), Path(sys.argv[2]).absolute()
    ways = {
        "start": measure_start,
        "keys": measure_keys,
        "speed": measure_speed,
        "resize": measure_resize,
    }
    with new_home(models) as home:
        answer(command, home)
        for name in sys.argv[3:] or ways:
            ways[name](command, home)


if __name__ == "__main__":
    main()
