"""A server under load: several clients at a time, each asking its next question when answered.

A block is so many clients asking one server. All servers get the same questions in blocks that
follow each other in random order, so that what changes on the machine meets all alike. A question
is asked of each server once, and everything is bounded: an answer, the time in all, the questions.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import httpx2
import psutil

from edgespec import signals
from edgespec.bench.chat_client import LIMITS, Endpoint, Limits, PeerError, ask, new_client
from edgespec.bench.peers import body_of
from edgespec.bench.records import LoadAnswer, LoadBlock
from edgespec.bench.suite import Question
from edgespec.errors import UsageError
from edgespec.types import Message, SamplingParams

EACH = 2
"""Questions of a client in a block; a client alone has twice as many."""

BUSY = 0.15
"""Share of this machine in use above which a block is not begun at once."""

_LOOK_S = 0.5

Dealt = tuple[tuple[Question, ...], ...]
"""The questions of a block, client by client."""


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What is asked, block by block of each round: the first turns of questions.

    `minutes` bounds all of it; the block under way then is dropped.
    """

    rounds: tuple[tuple[Dealt, ...], ...]
    sampling: SamplingParams
    max_tokens: int
    minutes: float


def plan_load(
    questions: Sequence[Question],
    clients: Sequence[int],
    num_rounds: int,
    sampling: SamplingParams,
    max_tokens: int,
    minutes: float,
) -> LoadPlan:
    """Deal the questions out in seeded order, to as many rounds as they are enough for.

    Raises UsageError where they are too few for one round.
    """
    noise = random.Random(sampling.seed)
    order = noise.sample(list(questions), len(questions))
    needed = sum(count * _num_each(count) for count in clients)
    if needed > len(order):
        raise UsageError(
            f"{len(order)} questions are too few: a round takes {needed}, none twice",
            "give fewer --clients, or a larger --suite",
        )

    def deal(num_clients: int) -> Dealt:
        num_each = range(_num_each(num_clients))
        return tuple(tuple(order.pop() for _ in num_each) for _ in range(num_clients))

    rounds = tuple(
        tuple(deal(count) for count in noise.sample(list(clients), len(clients)))
        for _ in range(min(num_rounds, len(order) // needed))
    )
    return LoadPlan(rounds, sampling, max_tokens, minutes)


def _num_each(num_clients: int) -> int:
    return EACH if num_clients > 1 else 2 * EACH


@dataclass(slots=True)
class Quiet:
    """Waits until this machine rests, for `patience_s` in all, as some machines never do.

    What a server prepares after an answer would slow another one that is asked next.
    """

    patience_s: float = 20.0

    def __call__(self) -> float:
        """Wait; returns the share of the machine that is still in use."""
        while True:
            with signals.noted() as interrupt:  # which would leave psutil's files open
                busy: float = psutil.cpu_percent(_LOOK_S) / 100
            if (stopped := interrupt()) is not None:
                raise stopped
            if busy <= BUSY or self.patience_s <= 0:
                return busy
            self.patience_s -= _LOOK_S


@dataclass(slots=True)
class Load:
    """A measurement under way: what is known so far, and who was left out with the reason."""

    servers: list[Endpoint]
    plan: LoadPlan
    say: Callable[[str], None]
    limits: Limits = LIMITS
    quiet: Callable[[], float] = field(default_factory=Quiet)
    blocks: list[LoadBlock] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def play(self) -> bool:
        """Play all blocks; returns whether there was time for them.

        Raises the PeerError of the last server that is left where none has ever answered.
        """
        noise = random.Random(self.plan.sampling.seed)
        deadline = time.monotonic() + 60 * self.plan.minutes
        for number, blocks in enumerate(self.plan.rounds):
            for dealt in blocks:
                for place, server in enumerate(noise.sample(self.servers, len(self.servers))):
                    busy = self.quiet()
                    block = _Block(server, dealt, self.plan, self.limits)
                    if not block.play(deadline - time.monotonic()):
                        self.say(f"stopped after {self.plan.minutes:g} minutes")
                        return False
                    self._keep(block, block.record(number, place, busy))
        return True

    def _keep(self, block: _Block, record: LoadBlock) -> None:
        if all(answer.failure for answer in record.answers):
            self.servers.remove(block.server)
            if not self.servers and not self.blocks:
                raise block.errors[-1]
            self.left_out.append(str(block.errors[-1]))
            self.say(f"left out: {self.left_out[-1]}")
            return
        self.blocks.append(record)
        failed = sum(bool(answer.failure) for answer in record.answers)
        clients = "1 client" if record.num_clients == 1 else f"{record.num_clients} clients"
        self.say(
            f"round {record.round + 1}: {record.server}, {clients}: "
            f"{record.tokens_per_second:.1f} tokens/s{f', {failed} failed' if failed else ''}"
        )


class _Block:
    """So many clients asking one server."""

    def __init__(self, server: Endpoint, dealt: Dealt, plan: LoadPlan, limits: Limits) -> None:
        self.server = server
        self.errors: list[PeerError] = []
        self._dealt = dealt
        self._plan = plan
        self._limits = limits
        self._answers: list[LoadAnswer] = []
        self._wall_ms = 0.0

    def play(self, left_s: float) -> bool:
        """Have all clients ask; returns whether they were done in time."""
        return left_s > 0 and asyncio.run(self._play(left_s))

    def record(self, number: int, place: int, busy: float) -> LoadBlock:
        """What was measured."""
        return LoadBlock(
            server=self.server.name,
            num_clients=len(self._dealt),
            round=number,
            place=place,
            wall_ms=self._wall_ms,
            busy=busy,
            answers=tuple(self._answers),
        )

    async def _play(self, left_s: float) -> bool:
        try:
            async with new_client(self.server, self._limits) as client, asyncio.timeout(left_s):
                began = time.perf_counter()
                await asyncio.gather(
                    *(self._ask_all(client, number) for number in range(len(self._dealt)))
                )
                self._wall_ms = 1e3 * (time.perf_counter() - began)
        except TimeoutError:
            return False
        return True

    async def _ask_all(self, client: httpx2.AsyncClient, number: int) -> None:
        """What one client does."""
        for question in self._dealt[number]:
            began = time.perf_counter()
            try:
                answer = await self._ask(client, number, question)
            except PeerError as error:
                self.errors.append(error)
                answer = LoadAnswer(
                    question=question.id,
                    client=number,
                    whole_ms=1e3 * (time.perf_counter() - began),
                    failure=error.kind,
                )
            self._answers.append(answer)

    async def _ask(self, client: httpx2.AsyncClient, number: int, question: Question) -> LoadAnswer:
        prompt = (Message("user", question.turns[0]),)
        plan = self._plan
        held = question.request(prompt, plan.sampling, plan.max_tokens).sampling
        body = body_of(self.server, prompt, held, plan.max_tokens)
        heard = await ask(client, self.server, body, self._limits)
        return LoadAnswer(
            question=question.id,
            client=number,
            num_tokens=heard.num_tokens,
            is_counted=heard.is_counted,
            first_ms=heard.first_ms,
            whole_ms=heard.whole_ms,
            gaps_ms=tuple(heard.gaps_ms),
        )
