"""`edgespec serve` beside llama-server under 1, 2, 4 and 8 clients.

    python research/serve_load.py EDGESPEC LLAMA_SERVER MODEL.gguf QUESTIONS.jsonl [--rounds 3]

Both servers have four slots and stay loaded; one is asked at a time, in random order, the same
questions (first turns of the file's conversations that no round before had), greedy, 128 tokens.
Each client asks its next question when it has its answer. Printed are for each number of clients,
over all rounds:

    tokens/s    all tokens of a round by its wall-clock time, and the ratio by pairs of rounds
    first       ms to the first text: median and 95th percentile
    gap         ms between two pieces of text: 95th percentile and worst
    fairness    Jain's index of the tokens per second of answers: 1 if all were served alike
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import psutil

NUM_TOKENS = 128
NUM_SLOTS = 4
CLIENTS = (1, 2, 4, 8)
EACH = 2
"""Questions of each client in a round; one client has twice as many."""

CHAT = (
    "writing",
    "roleplay",
    "reasoning",
    "math",
    "coding",
    "extraction",
    "stem",
    "humanities",
    "qa",
    "math_reasoning",
)


@dataclass
class Heard:
    """One answer as its client heard it, in seconds."""

    num_tokens: int = 0
    first_s: float = 0.0
    whole_s: float = 0.0
    gaps: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Tokens per second, waiting included."""
        return self.num_tokens / self.whole_s


@dataclass
class Round:
    """What all clients heard of one server."""

    wall_s: float
    heard: list[Heard]

    @property
    def rate(self) -> float:
        """Tokens per second of all together."""
        return sum(each.num_tokens for each in self.heard) / self.wall_s


async def ask(client: httpx2.AsyncClient, url: str, question: str) -> Heard:
    """One question, streamed."""
    body = {
        "messages": [{"role": "user", "content": question}],
        "max_tokens": NUM_TOKENS,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    heard, began = Heard(), time.perf_counter()
    last = 0.0
    async with client.stream("POST", f"{url}/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            event, now = json.loads(line[6:]), time.perf_counter() - began
            if usage := event.get("usage"):
                heard.num_tokens = usage["completion_tokens"]
            if event["choices"] and event["choices"][0]["delta"].get("content"):
                if last:
                    heard.gaps.append(now - last)
                else:
                    heard.first_s = now
                last = now
    heard.whole_s = time.perf_counter() - began
    return heard


async def play(url: str, questions: Sequence[str], num_clients: int) -> Round:
    """So many clients ask all questions, each one after the other."""
    waiting = list(reversed(questions))
    heard: list[Heard] = []

    async def one() -> None:
        while waiting:
            heard.append(await ask(client, url, waiting.pop()))

    # llama-server now and then closes a connection after an answer: each request has its own.
    limits = httpx2.Limits(max_keepalive_connections=0)
    async with httpx2.AsyncClient(timeout=600, limits=limits) as client:
        began = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(num_clients)))
        return Round(time.perf_counter() - began, heard)


@contextlib.contextmanager
def server(command: Sequence[str], port: int) -> Iterator[str]:
    """A server until its block ends; its URL once it is healthy."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            with contextlib.suppress(httpx2.HTTPError):
                if httpx2.get(f"{url}/health", timeout=5).status_code == 200:
                    break
            time.sleep(0.2)
        wait_until_idle(process.pid)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def wait_until_idle(pid: int) -> None:
    """Wait until a process and its children have done nothing for ten seconds.

    What they do while nobody asks would slow the other server.
    """

    def used_s() -> float:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        return sum(sum(each.cpu_times()[:2]) for each in family)

    quiet, before = 0, used_s()
    while quiet < 10:
        time.sleep(1)
        now = used_s()
        quiet = quiet + 1 if now - before < 0.1 else 0
        before = now


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all are below."""
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def report(num_clients: int, rounds: dict[str, list[Round]]) -> None:
    """Print what was heard by so many clients."""
    for name, played in rounds.items():
        heard = [each for one in played for each in one.heard]
        rates = [each.rate for each in heard]
        jain = sum(rates) ** 2 / (len(rates) * sum(rate**2 for rate in rates))
        first = [1e3 * each.first_s for each in heard]
        gaps = [1e3 * gap for each in heard for gap in each.gaps]
        rate = statistics.median(one.rate for one in played)
        print(
            f"{num_clients} clients  {name:13} {rate:5.1f} tokens/s"
            f"  first {statistics.median(first):6.0f} {percentile(first, 0.95):6.0f}"
            f"  gap {percentile(gaps, 0.95):5.0f} {max(gaps):5.0f}  fairness {jain:.2f}"
        )
    ours, theirs = rounds.values()
    ratios = [one.rate / other.rate for one, other in zip(ours, theirs, strict=True)]
    listed = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    print(f"{num_clients} clients  ratio {statistics.median(ratios):.2f} ({listed})", flush=True)


def main() -> None:
    """Play all rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("edgespec")
    parser.add_argument("llama_server")
    parser.add_argument("model", type=Path)
    parser.add_argument("questions", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--drafter", default="auto")
    parser.add_argument("--clients", type=int, nargs="+", default=CLIENTS)
    options = parser.parse_args()
    noise = random.Random(3)
    lines = map(json.loads, options.questions.read_text().splitlines())
    questions = [line["turns"][0] for line in lines if line.get("category") in CHAT]
    noise.shuffle(questions)
    ports = free_port(), free_port()
    ours = [options.edgespec, "serve", "--port", str(ports[0]), "--model", options.model.stem]
    ours += ["--no-learn", "--slots", str(NUM_SLOTS), "--drafter", options.drafter]
    theirs = [options.llama_server, "-m", str(options.model), "--port", str(ports[1])]
    theirs += ["-t", str(os.cpu_count()), "-np", str(NUM_SLOTS), "-c", "8192"]
    with server(ours, ports[0]) as our_url, server(theirs, ports[1]) as their_url:
        urls = {"edgespec": our_url, "llama-server": their_url}
        for url in urls.values():
            asyncio.run(play(url, ["Say hello."] * 2, 1))
        print("settled", flush=True)
        played: dict[int, dict[str, list[Round]]] = {
            count: {name: [] for name in urls} for count in options.clients
        }
        for _ in range(options.rounds):
            for count in options.clients:
                asked = [questions.pop() for _ in range(max(EACH * count, 2 * EACH))]
                for name in noise.sample(sorted(urls), 2):
                    played[count][name].append(asyncio.run(play(urls[name], asked, count)))
        for count, rounds in played.items():
            report(count, rounds)


if __name__ == "__main__":
    main()
