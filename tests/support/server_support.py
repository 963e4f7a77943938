"""A small completer without weights, and a real server around it, for the tests of HTTP."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from answer_support import GeneratedAnswer

from edgespec.errors import ContextOverflowError, GrammarError, UsageError
from edgespec.protocols import TextCompleter
from edgespec.server.answers import AnswerQueue
from edgespec.server.app import assemble
from edgespec.server.models import Models, Ready, Served
from edgespec.server.run import Server, bind
from edgespec.server.settings import ServerSettings
from edgespec.types import (
    Chunk,
    Completion,
    CompletionRequest,
    DrafterCounts,
    DrafterInsight,
    FinishReason,
    Insight,
    Message,
    ModelDetails,
    PrefillProgress,
    ServedModel,
    SpeculationStats,
    Timings,
    TokenLogprob,
)

END_OF_TURN = 256
NUM_VOCAB = 257
NUM_CONTEXT = 4096
NUM_BATCH = 3500
DETAILS = ModelDetails(
    architecture="echo",
    num_vocab=NUM_VOCAB,
    end_tokens=(END_OF_TURN,),
    infill_tokens=(1, 2, 3),
    num_embedded=20,
    chat_template="{% if tools %}<tool_call>{% endif %}",
)
ANY_PORT = ServerSettings(port=0)


@dataclass
class EchoCompleter:
    """Answers with the last turn's text, or `says`; a token is one byte, 256 ends the turn.

    Takes `prefill_s` before the first token and `token_s` for each one, hears a cancel at any time,
    and notes what a test wants to know: the requests, the threads, how many were open at a time,
    and which answers (from 1) were cancelled.
    """

    prefill_s: float = 0.0
    token_s: float = 0.0
    requests: list[CompletionRequest] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)
    stopped: set[int] = field(default_factory=set)
    fail_after: Exception | None = None
    says: str | None = None
    details: ModelDetails = DETAILS
    drafters: tuple[str, ...] = ("context",)
    num_open: int = 0
    most_open: int = 0
    _counting: threading.Lock = field(default_factory=threading.Lock)

    @property
    def model(self) -> ServedModel:
        return ServedModel(
            "echo/tiny",
            "says it again",
            NUM_CONTEXT,
            1234,
            "context",
            "identical",
            details=self.details,
        )

    def count_tokens(self, text: Sequence[Message] | str) -> int:
        if isinstance(text, str):
            return len(text.encode())
        return sum(len(message.content.encode()) + 2 for message in text)

    def encode(self, request: CompletionRequest) -> tuple[int, ...]:
        return request.prompt_tokens or tuple(self.render(request).encode())

    def render(self, request: CompletionRequest) -> str:
        """Roles and texts, what was called and can be called, up to the assistant's turn."""
        if isinstance(request.prompt, str):
            return request.prompt
        turns = [
            f"{each.role}: {each.content}"
            + "".join(f"[{call.name} {call.arguments}]" for call in each.tool_calls)
            for each in request.prompt
        ]
        last = [] if request.continue_final_message else ["assistant: "]
        return request.template.tools + "\n".join([*turns, *last])

    def tokenize(
        self, text: str, *, add_special: bool = False, parse_special: bool = False
    ) -> tuple[int, ...]:
        return tuple(text.encode())

    def embed(self, tokens: Sequence[int]) -> tuple[float, ...]:
        return (len(tokens) / 2, 0.5)

    def insight(self) -> Insight:
        drafters = tuple(DrafterInsight(name, DrafterCounts()) for name in self.drafters)
        return Insight({1: 50.0, 2: 55.0}, 3, drafters)

    def decode_token(self, token: int) -> bytes:
        return b"<end>" if token == END_OF_TURN else bytes([token])

    def answer(self, request: CompletionRequest) -> GeneratedAnswer:
        return GeneratedAnswer(lambda cancelled: self._begin(request, cancelled))

    def _begin(self, request: CompletionRequest, cancelled: threading.Event) -> Iterator[Chunk]:
        with self._counting:
            self.num_open += 1
            self.most_open = max(self.most_open, self.num_open)
            self.threads.add(threading.get_ident())
            self.requests.append(request)
            number = len(self.requests)
        try:
            yield from self._say(request, cancelled, number)
        finally:
            with self._counting:
                self.num_open -= 1

    def _say(
        self, request: CompletionRequest, cancelled: threading.Event, number: int
    ) -> Iterator[Chunk]:
        num_prompt = self._check(request)
        started = time.monotonic()
        cancelled.wait(self.prefill_s)
        prompt_ms = (time.monotonic() - started) * 1e3
        emitted: list[int] = []
        said = sent = ""
        reason: FinishReason = "length"
        stop: str | None = None
        if num_prompt > NUM_BATCH:
            yield Chunk("", progress=PrefillProgress(3, num_prompt, 3))
        text = _last_text(request) if self.says is None else self.says
        for token in (*text.encode(), END_OF_TURN):
            if cancelled.is_set() or len(emitted) == request.max_tokens:
                break
            cancelled.wait(self.token_s)
            emitted.append(token)
            if token == END_OF_TURN:
                reason = "stop"
                break
            said = bytes(emitted).decode("utf-8", errors="ignore")
            if (found := _stop_at(said, request.stop)) is not None:
                said, reason, stop = said[: found[0]], "stop", found[1]
                break
            text = _safe_part(said, request.stop)[len(sent) :]
            sent += text
            yield Chunk(text, self._logprobs(token, request.num_top_logprobs))
            if self.fail_after is not None:
                raise self.fail_after
        if cancelled.is_set():
            self.stopped.add(number)
            reason = "cancelled"
        decode_ms = (time.monotonic() - started) * 1e3 - prompt_ms
        timings = Timings(prompt_ms, decode_ms, prompt_ms, num_prompt, 3, len(emitted), 50.0)
        counts = DrafterCounts(8, 6) if request.speculate else DrafterCounts()
        stats = SpeculationStats(len(emitted), max(len(emitted) // 2, 1), {"context": counts})
        done = Completion(said, tuple(emitted), reason, timings, stats, stop_string=stop)
        yield Chunk(said[len(sent) :], stats=stats, timings=timings, completion=done)

    def _check(self, request: CompletionRequest) -> int:
        """The rules that the real engine has, too; returns the number of prompt tokens."""
        if any(token >= NUM_VOCAB for token, _ in request.sampling.logit_bias):
            raise UsageError("logit_bias names a token that the model does not have")
        constraint = request.sampling.constraint
        if constraint and constraint.kind == "gbnf" and "root" not in constraint.text:
            raise GrammarError("the grammar has no rule 'root'", "add one")
        size = len(request.prompt_tokens) or self.count_tokens(request.prompt)
        if size > NUM_CONTEXT:
            raise ContextOverflowError(
                f"the prompt is too long: {size} tokens, and the context holds {NUM_CONTEXT}",
                "shorten it",
                size,
                NUM_CONTEXT,
            )
        return size

    def _logprobs(self, token: int, num_top: int | None) -> tuple[TokenLogprob, ...]:
        if num_top is None:
            return ()
        top = tuple((token + rank, -0.25 - rank) for rank in range(num_top) if token + rank < 256)
        return (TokenLogprob(token, -0.25, top),)


def _last_text(request: CompletionRequest) -> str:
    if request.prompt_tokens:
        return bytes(request.prompt_tokens).decode("utf-8", "replace")
    return request.prompt if isinstance(request.prompt, str) else request.prompt[-1].content


def _safe_part(said: str, stop: Sequence[str]) -> str:
    """What may be shown: all but an end that could become a stop string."""
    held = max(
        (size for text in stop for size in range(1, len(text)) if said.endswith(text[:size])),
        default=0,
    )
    return said[: len(said) - held]


def _stop_at(said: str, stop: Sequence[str]) -> tuple[int, str] | None:
    return min(((at, text) for text in stop if (at := said.find(text)) >= 0), default=None)


def served_by(completer: TextCompleter) -> Served:
    """As endpoints get it; no thread answers."""
    return Served(completer, AnswerQueue(completer, 1))


@dataclass(frozen=True)
class Serving:
    """A server in a thread."""

    host: str
    port: int
    thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/v1"

    @property
    def is_alive(self) -> bool:
        return self.thread is not None and self.thread.is_alive()

    def connect(self, timeout_s: float = 10.0) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=timeout_s)


@dataclass(frozen=True)
class Running(Serving):
    """One whose only model is loaded, and the queue before that."""

    answers: AnswerQueue = field(kw_only=True)


@contextmanager
def serving(models: Models, settings: ServerSettings = ANY_PORT) -> Iterator[Serving]:
    """The real server on a free port, in a thread; everything it opened is closed at the end."""
    listener = bind(settings)
    port = listener.getsockname()[1]
    ready = threading.Event()
    server = Server(assemble(models, settings), models, settings, ready.set)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        assert ready.wait(10), "the server did not start"
        yield Serving(settings.address, port, thread)
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()
        assert not thread.is_alive(), "the server did not stop"
        assert models.join(0.0), "a worker thread did not stop"


@contextmanager
def running_server(
    completer: TextCompleter, settings: ServerSettings = ANY_PORT
) -> Iterator[Running]:
    """The same around one completer, once that is served."""
    models = Models([Ready(completer)], settings)
    with serving(models, settings) as server:
        wait_until(lambda: not models.is_loading)
        answers = models.default.answers
        yield Running(server.host, server.port, server.thread, answers=answers)


@dataclass(frozen=True)
class Reply:
    """A whole HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.body))

    @property
    def events(self) -> list[dict[str, Any]]:
        """The objects of a stream, of server-sent events or of lines of JSON."""
        lines = self.body.decode().splitlines()
        if "ndjson" not in self.headers["content-type"]:
            lines = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
        return [json.loads(line) for line in lines if line != "[DONE]"]

    @property
    def error(self) -> dict[str, Any]:
        """The error object, checked to have OpenAI's form."""
        content = self.json
        assert set(content) == {"error"}
        error = content["error"]
        assert set(error) - {"n_prompt_tokens", "n_ctx"} == {"message", "type", "param", "code"}
        assert isinstance(error["message"], str)
        assert error["message"]
        assert "\n" not in error["message"]
        assert "Traceback" not in error["message"]
        assert isinstance(error["param"], str | None)
        assert isinstance(error["code"], str | None)
        wanted = "server_error" if self.status >= 500 else "invalid_request_error"
        assert error["type"] == wanted
        return dict(error)


def send(
    server: Serving,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> Reply:
    """One request on a connection of its own, headers as they are given."""
    connection = http.client.HTTPConnection(server.host, server.port, timeout=10)
    try:
        given = {"Content-Type": "application/json"} | (headers or {})
        connection.request(method, path, body, given)
        response = connection.getresponse()
        lowered = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, lowered, response.read())
    finally:
        connection.close()


def post(server: Serving, path: str, content: object) -> Reply:
    """POST `content` as JSON."""
    return send(server, "POST", path, json.dumps(content).encode())


def start_chat(server: Serving, text: str, *, stream: bool) -> socket.socket:
    """Send a chat request and leave the answer in the socket, for clients that go away."""
    content = {"messages": [{"role": "user", "content": text}], "stream": stream}
    body = json.dumps(content).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    connection = server.connect()
    connection.sendall(head.encode() + body)
    return connection


def wait_until(condition: Callable[[], bool], timeout_s: float = 5.0) -> float:
    """Wait for `condition`; returns how long it took in seconds, fails after `timeout_s`."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < timeout_s, "waited in vain"
        time.sleep(0.002)
    return time.monotonic() - started
