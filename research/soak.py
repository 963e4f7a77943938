"""`edgespec serve` under sixteen clients who ask, leave and misbehave: bytes, memory, slots.

    EDGESPEC_HOME=HOME python research/soak.py EDGESPEC --minutes 30 [--slots 8] [--no-learn ...]
    EDGESPEC_HOME=HOME python research/soak.py EDGESPEC --requests 200 --slots 16

What is not known here goes to `edgespec serve`. Forty-eight questions are first asked one at a
time, plain and from an empty cache; `--alone FILE` keeps these answers for another run. Then the
clients ask them in random order, drafted, whole and streamed, by the APIs that have the words for
them, and each answer is compared with the one alone: text, calls of tools, log-probabilities. With
`--minutes` clients also leave while they wait and in mid-stream, and send what no server should
take: broken JSON, wrong types, hostile grammars, a prompt of 1 MB, bodies too large, halves of
requests. Every ten seconds memory and slots are noted; growth is that of a line fitted to all that
was noted after a fifth of the time. Exit status 1 if an answer was wrong, a status 5xx was seen, a
request was not refused in one line, the host died, or a slot was still taken ten seconds after the
last client had left.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeGuard

import httpx2
import psutil
from soak_questions import (
    NUM_QUESTIONS,
    Json,
    Question,
    is_last,
    joined,
    line_of,
    misbehaved,
    questions,
    ways,
)

from edgespec.bench.peer_process import free_port

NUM_CLIENTS = 16
NOTED_S = 10.0
FREED_S = 10.0
WARM_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Note:
    """Seconds since the clients began, MiB of server and host, answers computed and waiting.

    `private` is what of it is mapped from no file.
    """

    at_s: float
    server: float
    host: float
    private: float
    running: int
    waiting: int


@dataclass
class Soak:
    """A running server, what it should say, and what was seen."""

    client: httpx2.AsyncClient
    process: psutil.Process
    noise: random.Random
    asked: list[Question]
    wanted: list[dict[str, str]] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    began: float = 0.0

    async def listen_alone(self) -> None:
        """Each answer plain, one at a time."""
        for question in self.asked:
            path, say = ways(question)[0]
            body = say(question.body) | {"speculate": False, "cache_prompt": False}
            events = [event async for event in self._events(path, body)]
            self.wanted.append(joined(events))

    async def ask(self, number: int) -> None:
        """One question by a way of its own, to the end of its answer."""
        question = self.asked[number]
        path, body = self._way(question)
        events = [event async for event in self._events(path, body)]
        said, wanted = joined(events), self.wanted[number]
        self.seen[f"answer {path}{' streamed' if body['stream'] else ''}"] += 1
        where = f"question {number} ({question.kind}) by {path}, stream {body['stream']}"
        for what, text in wanted.items():
            if said[what] != text:
                at = first_difference(said[what], text)
                near = slice(max(at - 30, 0), at + 60)
                self._fail(f"{where}: {what} at {at}: {said[what][near]!r}, not {text[near]!r}")
        if body["stream"] and not (events and is_last(events[-1])):
            self._fail(f"{where}: a stream without an end")

    async def leave(self, number: int) -> None:
        """Ask and go: while nothing came yet, or after some events."""
        path, body = self._way(self.asked[number])
        stays = self.noise.randint(1, 12)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.noise.choice((0.05, 0.5, 2.0, 600.0))):
                async with contextlib.aclosing(self._events(path, body)) as events:
                    async for _ in events:
                        stays -= 1
                        if not stays:
                            self.seen["left in mid-stream"] += 1
                            return
                self.seen["answered before it left"] += 1
                return
        self.seen["left before a word" if stays else "left between words"] += 1

    async def misbehave(self) -> None:
        """Send what is to be refused."""
        what, path, body, is_bad = misbehaved(self.noise)
        kind = {"Content-Type": "application/json"}
        try:
            response = await self.client.post(path, content=body, headers=kind)
        except httpx2.WriteError:  # refused and closed before all was sent
            self.seen[f"{what}: closed"] += 1
            return
        self.seen[f"{what}: {response.status_code}"] += 1
        is_refused = 400 <= response.status_code < 500 and line_of(response.text)
        if not is_refused and (is_bad or response.status_code != 200):
            self._fail(f"{what} at {path}: {response.status_code} {response.text[:200]!r}")

    async def send_half(self) -> None:
        """A part of a request and no more; now and then until the server has enough of it."""
        request = (
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n\r\n{"
        )
        url = self.client.base_url
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(request[: self.noise.randint(1, len(request))])
        with contextlib.suppress(TimeoutError, ConnectionError):
            is_patient = self.noise.random() < 0.1
            async with asyncio.timeout(45 if is_patient else self.noise.uniform(0, 3)):
                await reader.read()
                self.seen["half a request: closed by the server"] += 1
        writer.close()

    async def play(self, is_over: Callable[[], bool]) -> None:
        """One client of those with random cancels and malformed requests."""
        while not is_over():
            dice, number = self.noise.random(), self.noise.randrange(len(self.asked))
            try:
                if dice < 0.6:
                    await self.ask(number)
                elif dice < 0.8:
                    await self.leave(number)
                elif dice < 0.97:
                    await self.misbehave()
                else:
                    self.seen["half a request"] += 1
                    await self.send_half()
            except (httpx2.HTTPError, ValueError) as error:
                self._fail(f"question {number}, dice {dice:.2f}: {type(error).__name__}: {error}")

    async def watch(self) -> None:
        """Note memory and slots until cancelled."""
        hosts = self._hosts()
        while True:
            running, waiting = await self.busy()
            if self._hosts() != hosts:
                self._fail(f"the host {hosts} is {self._hosts()} now")
                hosts = self._hosts()
            infos = [each.memory_info() for each in (self.process, *hosts)]
            sizes = [info.rss / 2**20 for info in infos]
            private = sum(info.rss - info.shared for info in infos) / 2**20
            at_s = time.monotonic() - self.began
            self.notes.append(Note(at_s, sizes[0], sum(sizes[1:]), private, running, waiting))
            print(
                f"{at_s:5.0f} s  {sizes[0]:6.1f} + {sum(sizes[1:]):7.1f} MiB, private "
                f"{private:7.1f}  running {running} waiting {waiting}  "
                f"{self.seen.total()} requests, {len(self.failures)} failures",
                flush=True,
            )
            await asyncio.sleep(NOTED_S)

    async def busy(self) -> tuple[int, int]:
        """Slots that are taken, and answers that wait."""
        slots = (await self.client.get("/slots")).json()
        figures = await self.figures()
        running = sum(slot["is_processing"] for slot in slots)
        return running, int(figures["llamacpp:requests_deferred"])

    async def figures(self) -> dict[str, float]:
        """Those of /metrics that have no labels."""
        text = (await self.client.get("/metrics")).text
        pairs = (
            line.split() for line in text.splitlines() if line[:1] not in "#" and "{" not in line
        )
        return {name: float(value) for name, value in pairs}

    def _hosts(self) -> list[psutil.Process]:
        children = self.process.children(recursive=True)
        return [each for each in children if "host_child" in " ".join(each.cmdline())]

    def _way(self, question: Question) -> tuple[str, Json]:
        path, say = self.noise.choice(ways(question))
        body = say(question.body) | {"stream": self.noise.random() < 0.5}
        if say is dict and self.noise.random() < 0.2:
            body["cache_prompt"] = False
        if say is dict and self.noise.random() < 0.1:
            body["speculate"] = False
        return path, body

    async def _events(self, path: str, body: Json) -> AsyncGenerator[Json]:
        """The events of an answer, or itself if it is whole; `[DONE]` as `{"done": true}`."""
        async with self.client.stream("POST", path, json=body) as response:
            if response.status_code != 200:
                text = (await response.aread()).decode()
                raise ValueError(f"{path}: {response.status_code} {text[:300]}")
            if not body.get("stream"):
                yield json.loads(await response.aread())
                return
            async for line in response.aiter_lines():
                data = line.removeprefix("data: ")
                if data == "[DONE]":
                    yield {"done": True}
                elif data.startswith("{"):
                    event = json.loads(data)
                    if "error" in event and event["error"] is not None:
                        raise ValueError(f"{path}: in mid-stream {event['error']}")
                    yield event

    def _fail(self, what: str) -> None:
        self.failures.append(what)
        print("FAILED:", what, flush=True)


def first_difference(one: str, other: str) -> int:
    """How many letters at the beginning are the same."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


@contextlib.contextmanager
def server(command: Sequence[str], port: int) -> Iterator[psutil.Process]:
    """`edgespec serve` until its block ends; what it wrote is printed then."""
    with tempfile.TemporaryFile("w+") as written:
        process = subprocess.Popen([*command, "--port", str(port)], stderr=written)
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
            status = process.wait(60)
            written.seek(0)
            print(f"exit status {status}; stderr:", *written.readlines()[-20:], sep="\n  ")


async def until_healthy(client: httpx2.AsyncClient) -> None:
    """Return when the model is loaded."""
    async with asyncio.timeout(300):
        while True:
            with contextlib.suppress(httpx2.HTTPError):
                if (await client.get("/health")).status_code == 200:
                    return
            await asyncio.sleep(0.2)


async def run(port: int, process: psutil.Process, chosen: argparse.Namespace) -> bool:
    """The answers alone, then the clients; prints what was seen, False if anything is wrong."""
    noise = random.Random(chosen.seed)
    url = f"http://127.0.0.1:{port}"
    async with httpx2.AsyncClient(base_url=url, timeout=900) as client:
        await until_healthy(client)
        soak = Soak(client, process, noise, questions(noise))
        bodies = [each.body for each in soak.asked]
        kept = json.loads(chosen.alone.read_text()) if _is_there(chosen.alone) else {}
        if kept.get("asked") == bodies:  # the documents asked about change with the project
            soak.wanted = kept["answered"]
        else:
            await soak.listen_alone()
        if chosen.alone:
            chosen.alone.write_text(json.dumps({"asked": bodies, "answered": soak.wanted}))
        print(f"{len(soak.wanted)} answers alone", flush=True)
        before = await soak.figures()
        soak.began = time.monotonic()
        watching = asyncio.create_task(soak.watch())
        if chosen.requests:
            await ask_in_random_order(soak, chosen.requests)
        else:
            over_at = soak.began + 60 * chosen.minutes
            await asyncio.gather(
                *(soak.play(lambda: time.monotonic() > over_at) for _ in range(NUM_CLIENTS))
            )
        took_s = time.monotonic() - soak.began
        watching.cancel()
        await wait_until_free(soak)
        after = await soak.figures()
        report(soak, took_s, {name: after[name] - value for name, value in before.items()})
    return not soak.failures


def _is_there(path: Path | None) -> TypeGuard[Path]:
    return path is not None and path.exists()


async def ask_in_random_order(soak: Soak, num_requests: int) -> None:
    """Every question about as often as the others, as many at once as there are clients."""
    waiting = [number % NUM_QUESTIONS for number in range(num_requests)]
    soak.noise.shuffle(waiting)

    async def one() -> None:
        while waiting:
            await soak.ask(waiting.pop())

    await asyncio.gather(*(one() for _ in range(NUM_CLIENTS)))


async def wait_until_free(soak: Soak) -> None:
    """Wait until no slot is taken and nothing waits, or say that it did not come to that."""
    began = time.monotonic()
    while (busy := await soak.busy()) != (0, 0):
        if time.monotonic() > began + FREED_S:
            soak.failures.append(f"{busy[0]} slots taken and {busy[1]} waiting after {FREED_S} s")
            return
        await asyncio.sleep(0.1)
    print(f"all slots are free {time.monotonic() - began:.1f} s after the last client left")


def report(soak: Soak, took_s: float, figures: dict[str, float]) -> None:
    """Print what was seen; `figures` are counters of the server over this time."""
    for what, count in sorted(soak.seen.items()):
        print(f"{count:6} {what}")
    settled = [note for note in soak.notes if note.at_s >= WARM_SHARE * took_s]
    for name in ("server", "host", "private") if len(settled) > 2 else ():
        sizes = [getattr(note, name) for note in settled]
        line = statistics.linear_regression([note.at_s for note in settled], sizes)
        first, last = (line.intercept + line.slope * at for at in (WARM_SHARE * took_s, took_s))
        growth = 100 * (last / first - 1)
        print(f"{name:8} {sizes[0]:.1f} .. {sizes[-1]:.1f} MiB, fitted {growth:+.2f} %")
    said, drafted = figures["vllm:generation_tokens_total"], figures["llamacpp:draft_tokens_total"]
    print(
        f"{took_s:.0f} s, {said:.0f} tokens of whole answers, {said / took_s:.1f} tokens/s, "
        f"{figures['llamacpp:draft_tokens_accepted_total']:.0f} of {drafted:.0f} drafted kept"
    )
    print(f"{soak.seen.total()} requests, {len(soak.failures)} failures", *soak.failures, sep="\n")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("edgespec")
    span = parser.add_mutually_exclusive_group(required=True)
    span.add_argument("--minutes", type=float)
    span.add_argument("--requests", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--alone", type=Path, help="keeps the answers alone for another run")
    chosen, more = parser.parse_known_args()
    port = free_port()
    command = [chosen.edgespec, "serve", "--on-demand", "--drafter", "auto", *more]
    with server(command, port) as process:
        is_well = asyncio.run(run(port, process, chosen))
    sys.exit(not is_well)


if __name__ == "__main__":
    main()
