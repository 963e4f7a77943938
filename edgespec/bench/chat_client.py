"""What any OpenAI-compatible server answers, streamed, with the times that its client sees.

Nothing that a server sends is trusted: connecting, an answer as a whole and its bytes have limits,
and what is not an answer raises PeerError, in one line. Tokens are counted by the server's `usage`,
or by pieces of text where it sends none. Every request has a connection of its own, since
llama-server now and then closes one after an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import httpx2
from pydantic import BaseModel, Field, ValidationError

from edgespec.errors import NetworkError, UsageError

Failure = Literal["unreachable", "key", "busy", "refused", "broken", "late", "garbage"]
"""How asking a server can fail, in a word."""

_KINDS: dict[int, Failure] = {401: "key", 403: "key", 429: "busy", 503: "busy"}
_REMEDIES: dict[Failure, str] = {
    "key": "put its key into EDGESPEC_PEER_KEY",
    "busy": "ask it less at a time, or later",
}
_MOST_SHOWN = 200
"""Characters of what a server says of an error."""

_MOST_OF_ERROR = 64 << 10


class PeerError(NetworkError):
    """A server that cannot be asked, or whose answer is none."""

    def __init__(self, kind: Failure, problem: str, remedy: str = "") -> None:
        super().__init__(problem, remedy or _REMEDIES.get(kind, ""))
        self.kind: Failure = kind


@dataclass(frozen=True, slots=True)
class Limits:
    """How long connecting and a whole answer may take, and how many bytes it may have."""

    connect_s: float = 5.0
    answer_s: float = 900.0
    num_bytes: int = 16 << 20


LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a server is asked: `url` ends before `/chat/completions`; "" is no model, or no key."""

    name: str
    url: str
    model: str = ""
    key: str = field(default="", repr=False)

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine, where no proxy is asked."""
        host = httpx2.URL(self.url).host
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(host).is_loopback
        return host == "localhost"


def endpoint(name: str, address: str, key: str = "") -> Endpoint:
    """The endpoint at `http://HOST:PORT[/v1][#MODEL]`; raises UsageError.

    >>> endpoint("ollama", "http://127.0.0.1:11434#qwen2.5-coder:1.5b")
    Endpoint(name='ollama', url='http://127.0.0.1:11434/v1', model='qwen2.5-coder:1.5b')
    """
    try:
        url = httpx2.URL(address)
    except httpx2.InvalidURL as error:
        raise UsageError(f"{address!r} is no URL: {error}", "give http://HOST:PORT") from error
    if url.scheme not in ("http", "https") or not url.host or url.userinfo or url.query:
        raise UsageError(f"{address!r} is no server's URL", "give http://HOST:PORT")
    path = url.path.rstrip("/") or "/v1"
    return Endpoint(name, str(url.copy_with(path=path, fragment=None)), url.fragment, key)


_Count = Annotated[int, Field(ge=0)]
_Time = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Delta(BaseModel):
    content: str | None = None
    reasoning_content: str | None = None


class _Choice(BaseModel):
    delta: _Delta = _Delta()
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: _Count
    completion_tokens: _Count


class ServerTimings(BaseModel):
    """What llama-server tells of an answer: times in ms, decoding without the first token."""

    prompt_ms: _Time
    predicted_ms: _Time
    draft_n: _Count | None = None
    draft_n_accepted: _Count | None = None


class _Event(BaseModel):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    timings: ServerTimings | None = None
    system_fingerprint: str | None = None
    error: Any = None


class _Model(BaseModel):
    id: str


class _Models(BaseModel):
    data: list[_Model]


@dataclass(slots=True)
class Heard:
    """One answer as its client hears it; times in ms from the request.

    `pieces_ms` are those at which text came. `is_counted` tells that the server told how many
    tokens there were. `build` is what it calls itself, "" if nothing.
    """

    text: str = ""
    num_tokens: int = 0
    num_prompt_tokens: int = 0
    is_counted: bool = False
    pieces_ms: list[float] = field(default_factory=list)
    whole_ms: float = 0.0
    timings: ServerTimings | None = None
    build: str = ""
    is_finished: bool = False

    @property
    def first_ms(self) -> float:
        """When the first text came; the end, where none did."""
        return self.pieces_ms[0] if self.pieces_ms else self.whole_ms

    @property
    def gaps_ms(self) -> list[float]:
        """Times between pieces of text."""
        later = zip(self.pieces_ms, self.pieces_ms[1:], strict=False)
        return [after - before for before, after in later]

    def take(self, event: _Event, now_ms: float) -> None:
        """Add what came at this time."""
        for choice in (event.choices or ())[:1]:
            text = choice.delta.content or ""
            if text or choice.delta.reasoning_content:
                self.pieces_ms.append(now_ms)
                self.text += text
                self.num_tokens += not self.is_counted
            self.is_finished |= choice.finish_reason is not None
        if event.usage is not None:
            self.num_tokens = event.usage.completion_tokens
            self.num_prompt_tokens = event.usage.prompt_tokens
            self.is_counted = True
        self.timings = event.timings or self.timings
        self.build = event.system_fingerprint or self.build


def new_client(server: Endpoint, limits: Limits = LIMITS) -> httpx2.AsyncClient:
    """A client for this server, for one event loop; whoever asked for it closes it."""
    headers = {"Accept-Encoding": "identity"}
    if server.key:
        headers["Authorization"] = f"Bearer {server.key}"
    return httpx2.AsyncClient(
        headers=headers,
        timeout=httpx2.Timeout(None, connect=limits.connect_s),
        limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
        trust_env=not server.is_local,
    )


async def models_of(
    client: httpx2.AsyncClient, server: Endpoint, limits: Limits = LIMITS
) -> list[str]:
    """The models that a server lists; raises PeerError."""
    request = client.build_request("GET", f"{server.url}/models")
    async with _bounded(server, limits), _response(client, request, server) as response:
        text = b"".join([part async for part in _parts(response, server, limits.num_bytes)])
        try:
            return [each.id for each in _Models.model_validate_json(text).data]
        except ValidationError as error:
            problem = f"{server.name} lists no models at {server.url}/models"
            raise PeerError("garbage", problem, "give its URL as http://HOST:PORT/v1") from error


async def ask(
    client: httpx2.AsyncClient, server: Endpoint, body: Mapping[str, Any], limits: Limits = LIMITS
) -> Heard:
    """Ask for one answer and hear it to its end; raises PeerError."""
    request = client.build_request("POST", f"{server.url}/chat/completions", json=dict(body))
    heard, began = Heard(), time.perf_counter()
    async with _bounded(server, limits), _response(client, request, server) as response:
        async for data in _data_of(response, server, limits.num_bytes):
            heard.take(_event(data, server), 1e3 * (time.perf_counter() - began))
    heard.whole_ms = 1e3 * (time.perf_counter() - began)
    if not heard.is_finished:
        raise PeerError("broken", f"{server.name} broke off in the middle of an answer")
    return heard


def _event(data: str, server: Endpoint) -> _Event:
    try:
        event = _Event.model_validate_json(data)
    except ValidationError as error:
        raise PeerError(
            "garbage", f"{server.name} sends what is no answer: {_line(data)}"
        ) from error
    if event.error is not None:
        raise PeerError("broken", f"{server.name} failed: {_said(event.error)}")
    return event


@contextlib.asynccontextmanager
async def _bounded(server: Endpoint, limits: Limits) -> AsyncIterator[None]:
    """Within this what goes wrong on the way is a PeerError, and lasts no longer than it may."""
    try:
        async with asyncio.timeout(limits.answer_s):
            yield
    except TimeoutError as error:
        problem = f"{server.name} had not answered after {limits.answer_s:g} s"
        raise PeerError("late", problem) from error
    except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
        problem = f"{server.name} cannot be reached at {server.url}"
        raise PeerError("unreachable", problem, "start it, or check the address") from error
    except httpx2.HTTPError as error:
        reason = _line(str(error)) or type(error).__name__
        raise PeerError("broken", f"the connection to {server.name} broke: {reason}") from error


@contextlib.asynccontextmanager
async def _response(
    client: httpx2.AsyncClient, request: httpx2.Request, server: Endpoint
) -> AsyncIterator[httpx2.Response]:
    """The answer to a request, its body to be read; raises PeerError for any status but 200."""
    response = await client.send(request, stream=True)
    try:
        if response.status_code != 200:
            raise await _refusal(response, server)
        yield response
    finally:
        await response.aclose()


async def _refusal(response: httpx2.Response, server: Endpoint) -> PeerError:
    body = b""
    with contextlib.suppress(PeerError):
        async for part in _parts(response, server, _MOST_OF_ERROR):
            body += part
    text = body.decode("utf-8", "replace")
    with contextlib.suppress(ValueError, RecursionError):
        text = _said(json.loads(text))
    kind = _KINDS.get(response.status_code, "refused")
    reason = f": {line}" if (line := _line(text)) else ""
    return PeerError(kind, f"{server.name} answers with status {response.status_code}{reason}")


async def _data_of(
    response: httpx2.Response, server: Endpoint, num_bytes: int
) -> AsyncIterator[str]:
    """What a stream of server-sent events holds, event by event, up to `[DONE]`."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip()
    if kind != "text/event-stream":
        raise PeerError("garbage", f"{server.name} does not stream: it sends {_line(kind) or '?'}")
    rest = b""
    async for part in _parts(response, server, num_bytes):
        *lines, rest = (rest + part).split(b"\n")
        for data in _data_in(lines):
            if data == "[DONE]":
                return
            yield data


def _data_in(lines: list[bytes]) -> Iterator[str]:
    for line in lines:
        if line.startswith(b"data:"):
            yield line[5:].decode("utf-8", "replace").strip()


async def _parts(
    response: httpx2.Response, server: Endpoint, num_bytes: int
) -> AsyncIterator[bytes]:
    """The body as it comes; raises PeerError where it is larger."""
    async for part in response.aiter_raw():
        num_bytes -= len(part)
        if num_bytes < 0:
            raise PeerError("garbage", f"{server.name} sends more than an answer can have")
        yield part


def _said(error: object) -> str:
    """What an error object of some API says."""
    while isinstance(error, dict):
        error = error.get("error") or error.get("message") or json.dumps(error)
    return _line(str(error))


def _line(text: str) -> str:
    """A stranger's words in one line that can be shown."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= _MOST_SHOWN else f"{line[:_MOST_SHOWN]}..."
