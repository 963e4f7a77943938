"""Each question answered every way, in turns, in one process: what `edgespec bench` measures.

A prompt is read once; all ways of the engine start from the same cache. Who goes first is drawn
anew for each question, because machines drift. Later turns follow the plain answer, whoever is
asked. Before anything is measured each way answers once for nothing, and the same plain answer is
timed at the start, now and then, and at the end; so is how fast memory is read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from edgespec.bench.meters import Energy
from edgespec.bench.recorder import Recorder
from edgespec.bench.records import Drift, Report, Run
from edgespec.bench.suite import Question
from edgespec.bench.turns import Surroundings, Turn, engine_turn, peer_turn, run_of
from edgespec.bench.ways import Peer, Ways
from edgespec.errors import ContextOverflowError, EdgeSpecError
from edgespec.machine.available import load_average
from edgespec.protocols import Answer, Completer
from edgespec.types import (
    PLAIN,
    PRODUCT,
    Completion,
    CompletionRequest,
    Insight,
    Message,
    SamplingParams,
)

DRIFT_EVERY = 10
"""Questions between two times that the plain answer is timed."""

_HELLO = (Message("user", "Say hello."),)
_COUNT = (Message("user", "Count from one to twenty in words."),)
_NUM_WARM, _NUM_TIMED = 8, 24


class Stopped(Exception):
    """The run was stopped: not an error, and nothing of the question under way is kept."""


class Asker:
    """Asks a completer; the answer under way, and all that follow, can be ended at once."""

    def __init__(self, completer: Completer) -> None:
        """Ask `completer`."""
        self._completer = completer
        self._lock = threading.Lock()
        self._latest: Answer | None = None
        self.is_stopped = False

    def complete(self, request: CompletionRequest) -> Completion:
        """The completion of a request; raises Stopped after `stop`."""
        with self._lock:
            answer = self._latest = self._completer.answer(request)
            if self.is_stopped:
                answer.cancel()
        completion = completion_of(answer)
        if self.is_stopped:
            raise Stopped
        return completion

    def stop(self) -> None:
        """End the answer under way and those to come; from any thread."""
        with self._lock:
            self.is_stopped = True
            if self._latest is not None:
                self._latest.cancel()

    def insight(self) -> Insight:
        """What is known now of speed here."""
        return self._completer.insight()


class Runner:
    """Asks questions every way; `peers` are other programs, of which one that fails is left out."""

    def __init__(
        self,
        asker: Asker,
        ways: Ways,
        recorder: Recorder,
        sampling: SamplingParams,
        max_tokens: int,
        report: Report,
        keep: Callable[[Report], None],
        bandwidth: Callable[[], float],
        peers: Sequence[Peer] = (),
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`recorder` observes the completer that `asker` asks; `clock` gives seconds.

        What is measured is added to `report`, which `keep` is given after each question.
        `bandwidth` measures how many bytes a second are read from memory.
        """
        self._report = report
        self._keep = keep
        self._bandwidth = bandwidth
        self._num_asked = 0
        self._asker = asker
        self._ways = ways
        self._recorder = recorder
        self._sampling = sampling
        self._max_tokens = max_tokens
        self._peers = {peer.name: peer for peer in peers}
        self._clock = clock
        self._energy = Energy()
        self._left_out: list[str] = list(ways.left_out)
        self._guess_bytes: dict[str, int] = {}
        self._pass_ms: Mapping[int, float] = {}

    def begin(self) -> None:
        """Have every way answer once for nothing, and look how fast the machine is."""
        with contextlib.suppress(ContextOverflowError):
            for way in self._ways.about:
                self._complete(way, self._plain_request(_HELLO, _NUM_WARM))
        for peer in list(self._peers.values()):
            self._answer_of_peer(peer, self._plain_request(_HELLO, _NUM_WARM))
        self._time()

    def measure(self, questions: Sequence[Question]) -> None:
        """Ask questions every way; those that do not fit the context are left out.

        Raises Stopped after the asker was stopped.
        """
        for question in questions:
            if self._num_asked and self._num_asked % DRIFT_EVERY == 0:
                self._time()
            self._num_asked += 1
            try:
                self._add(self.ask(question))
            except ContextOverflowError:
                self._left_out.append(f"{question.id} does not fit the context")
                self._add([])

    def finish(self) -> None:
        """Look how fast the machine is by now; the report is complete."""
        self._time()
        self._keep(self._report.model_copy(update={"is_complete": True}))

    def ask(self, question: Question) -> list[Run]:
        """A run of every way; raises ContextOverflowError where a turn does not fit."""
        order = [*self._ways.about, *self._peers]
        random.Random(f"{self._sampling.seed} {question.id}").shuffle(order)
        turns: dict[str, list[Turn]] = {name: [] for name in order}
        messages: list[Message] = []
        for text in question.turns:
            messages.append(Message("user", text))
            request = question.request(messages, self._sampling, self._max_tokens)
            prompt_ms, joules = self._read(request)
            for name in order:
                if name in self._ways.about:
                    turns[name].append(self._answer(name, request, prompt_ms, joules))
                elif name in self._peers:
                    turns[name] += self._answer_of_peer(self._peers[name], request)
            messages.append(Message("assistant", turns[PLAIN][-1].text))
        return [
            run_of(question, name, place, turns[name], turns[PLAIN])
            for place, name in enumerate(order)
            if len(turns[name]) == len(question.turns)
        ]

    def _read(self, request: CompletionRequest) -> tuple[float, float | None]:
        """Have a prompt read for all ways of the engine: milliseconds and joules that it took."""
        self._energy.taken()
        done = self._complete(PLAIN, dataclasses.replace(request, max_tokens=1))
        return done.timings.time_to_first_token_ms, self._energy.taken()

    def _answer(
        self, way: str, request: CompletionRequest, prompt_ms: float, joules: float | None
    ) -> Turn:
        """The answer of one way to a prompt that was read."""
        load = load_average()
        self._energy.taken()
        started = self._clock()
        completion = self._complete(way, request)
        elapsed_ms = (self._clock() - started) * 1e3
        own = self._energy.taken()
        around = Surroundings(load, None if joules is None or own is None else joules + own)
        insight = self._asker.insight()
        models = {each.name: each.guess_bytes for each in insight.drafters if each.guess_ms}
        self._guess_bytes[way] = max(models.values(), default=0)
        if way == PRODUCT or not self._pass_ms:
            self._pass_ms = insight.pass_ms
        kept = self._recorder.kept
        return engine_turn(completion, kept, elapsed_ms, prompt_ms, models, around)

    def _complete(self, way: str, request: CompletionRequest) -> Completion:
        self._ways.use(way)
        return self._asker.complete(dataclasses.replace(request, speculate=way != PLAIN))

    def _answer_of_peer(self, peer: Peer, request: CompletionRequest) -> list[Turn]:
        """The answer of another program; none, and it is asked no more, if it fails."""
        messages = [each for each in request.prompt if isinstance(each, Message)]
        load = load_average()
        self._energy.taken()
        try:
            most = request.max_tokens or self._max_tokens
            answer = peer.answer(messages, request.sampling, most)
        except EdgeSpecError as error:
            if self._asker.is_stopped:
                raise Stopped from error
            said = error.problem
            self._left_out.append(said if peer.name in said else f"{peer.name}: {said}")
            del self._peers[peer.name]
            peer.close()
            return []
        return [peer_turn(peer.name, answer, Surroundings(load, self._energy.taken()))]

    def _time(self) -> None:
        """Note what the same plain answer takes now, and how fast memory was read at most."""
        machine = self._report.machine
        most = max(machine.read_bandwidth, self._bandwidth())
        machine = machine.model_copy(update={"read_bandwidth": most})
        self._report = self._report.model_copy(update={"machine": machine})
        try:
            timings = self._complete(PLAIN, self._plain_request(_COUNT, _NUM_TIMED)).timings
        except ContextOverflowError:
            return
        num_timed = timings.num_decoded_tokens - 1
        if num_timed > 0:
            num_questions = len(self._report.of(PLAIN))
            token_ms = timings.decode_ms / num_timed
            drift = Drift(after_questions=num_questions, token_ms=token_ms)
            self._report = self._report.model_copy(update={"drift": (*self._report.drift, drift)})

    def _plain_request(self, messages: tuple[Message, ...], max_tokens: int) -> CompletionRequest:
        sampling = dataclasses.replace(self._sampling, constraint=None)
        return CompletionRequest(messages, sampling, max_tokens)

    def _add(self, runs: Sequence[Run]) -> None:
        """Add the runs of one more question to the report, and what is known by now."""
        report = self._report
        ways = tuple(
            way.model_copy(update={"guess_bytes": self._guess_bytes.get(way.name, way.guess_bytes)})
            for way in report.ways
        )
        self._report = report.model_copy(
            update={
                "runs": (*report.runs, *runs),
                "ways": ways,
                "pass_ms": dict(self._pass_ms),
                "left_out": tuple(dict.fromkeys((*report.left_out, *self._left_out))),
            }
        )
        self._keep(self._report)


def completion_of(answer: Answer) -> Completion:
    """What an answer comes to, its chunks not shown."""
    completion = None
    for chunk in answer:
        completion = chunk.completion
    assert completion is not None, "an answer ends with its completion"
    return completion
