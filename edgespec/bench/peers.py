"""Other programs as ways to answer: any OpenAI-compatible server, or a llama-server of our own.

    NAME=http://HOST:PORT[/v1][#MODEL]      a server that runs
    NAME=PATH [FLAG ...]                    llama-server, started with the run's model and stopped

Its own clock is preferred for decoding alone where it tells one (llama-server's `timings`): a
client sees several tokens at a time, and the first of them late.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import httpx2

from edgespec.bench.chat_client import (
    LIMITS,
    Endpoint,
    Heard,
    Limits,
    PeerError,
    ask,
    endpoint,
    models_of,
    new_client,
)
from edgespec.bench.peer_process import LlamaServer, Served
from edgespec.bench.ways import PeerAnswer
from edgespec.errors import UsageError
from edgespec.types import Message, SamplingParams

_KEY = "EDGESPEC_PEER_KEY"
_URL = re.compile("https?://", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,39}")
_FORM = "give NAME=http://HOST:PORT or NAME=PATH-OF-LLAMA-SERVER [FLAG ...]"
_WARM_UP = (Message("user", "Write a Python class for a stack, then write it again."),)
_NUM_WARM_UP = 48
_ALWAYS = ("temperature", "top_p", "seed")
_WHERE_DRAWN = ("top_k", "min_p")
"""Sent wherever tokens are drawn: llama-server has values of its own for them."""

_WHERE_ON = (
    *("typical_p", "repeat_penalty", "frequency_penalty", "presence_penalty"),
    *("dry_multiplier", "dry_base", "dry_allowed_length", "dry_penalty_last_n"),
)


@dataclass(frozen=True, slots=True)
class PeerSpec:
    """What was asked for: a server's URL, or a program with its flags."""

    name: str
    url: str = ""
    program: tuple[str, ...] = ()


def peer_spec(text: str) -> PeerSpec:
    """Read `NAME=URL` or `NAME=PATH [FLAG ...]`; raises UsageError.

    >>> peer_spec("llama-server=/opt/llama-server --spec-type ngram-mod").program
    ('/opt/llama-server', '--spec-type', 'ngram-mod')
    """
    name, _, value = (part.strip() for part in text.partition("="))
    if not _NAME.fullmatch(name) or not value:
        raise UsageError(f"{text!r} is no other program", _FORM)
    if _URL.match(value):
        return PeerSpec(name, url=value)
    try:
        return PeerSpec(name, program=tuple(shlex.split(value)))
    except ValueError as error:
        raise UsageError(f"{text!r} is no other program: {error}", _FORM) from error


def url_spec(text: str) -> PeerSpec:
    """Read `[NAME=]URL`, named by its host and port where there is no name; raises UsageError.

    >>> url_spec("http://127.0.0.1:8080/v1").name, url_spec("mine=http://127.0.0.1:8080").name
    ('127.0.0.1:8080', 'mine')
    """
    if _URL.match(text):
        return PeerSpec(httpx2.URL(endpoint("", text).url).netloc.decode("ascii"), url=text)
    spec = peer_spec(text)
    if not spec.url:
        raise UsageError(f"{text!r} is no server's URL", "give http://HOST:PORT or NAME=URL")
    return spec


def open_peer(spec: PeerSpec, served: Served, limits: Limits = LIMITS) -> OpenPeer:
    """The program that was asked for, started if need be, warmed and ready to be asked.

    Raises UsageError for an address that is none, PeerError where it cannot be asked.
    """
    process = None if spec.url else LlamaServer(spec.name, spec.program, served)
    try:
        url = spec.url if process is None else process.start()
        server = asyncio.run(_with_model(endpoint(spec.name, url, _key(spec.name)), limits))
        peer = OpenPeer(server, process, limits)
        peer.warm_up()
    except BaseException:
        if process is not None:
            process.stop()
        raise
    return peer


class OpenPeer:
    """A program that was asked once, and answers."""

    def __init__(self, server: Endpoint, process: LlamaServer | None, limits: Limits) -> None:
        """`process` is what was started for it, None for a server that runs."""
        self.endpoint = server
        self.about = f"{server.url}, model {server.model}"
        self._process = process
        self._limits = limits
        self._lock = threading.Lock()
        self._under_way: tuple[asyncio.AbstractEventLoop, asyncio.Task[Heard]] | None = None
        self._is_closed = False

    @property
    def name(self) -> str:
        """The way's name, in tables and files."""
        return self.endpoint.name

    def warm_up(self) -> None:
        """Have it answer once, and see what it tells of itself; raises PeerError."""
        heard = self._hear(body_of(self.endpoint, _WARM_UP, SamplingParams(), _NUM_WARM_UP))
        about = [self.about]
        if self._process is not None:
            self._process.check_drafting(heard)
            about = [self._process.about, *self._process.idle_notes()]
        if heard.build:
            about.append(f"build {heard.build}")
        if not heard.is_counted:
            about.append("tells no number of tokens: pieces of text are counted")
        self.about = "; ".join(about)

    def answer(
        self, messages: Sequence[Message], sampling: SamplingParams, max_tokens: int
    ) -> PeerAnswer:
        """Ask, and wait for the whole answer; raises PeerError."""
        heard = self._hear(body_of(self.endpoint, messages, sampling, max_tokens))
        timings = heard.timings
        decode_ms = heard.whole_ms - heard.first_ms
        return PeerAnswer(
            text=heard.text,
            num_tokens=heard.num_tokens,
            num_prompt_tokens=heard.num_prompt_tokens,
            request_ms=heard.whole_ms,
            first_token_ms=heard.first_ms,
            decode_ms=decode_ms if timings is None else timings.predicted_ms,
            prompt_ms=None if timings is None else timings.prompt_ms,
            proposed=None if timings is None else timings.draft_n,
            accepted=None if timings is None else timings.draft_n_accepted,
        )

    def close(self) -> None:
        """End what was started, and the answer under way; from any thread, and more than once."""
        with self._lock:
            self._is_closed = True
            if self._under_way is not None:
                loop, task = self._under_way
                loop.call_soon_threadsafe(task.cancel)
        if self._process is not None:
            self._process.stop()

    def _hear(self, body: dict[str, Any]) -> Heard:
        try:
            return asyncio.run(self._ask(body))
        except asyncio.CancelledError:
            raise PeerError("broken", f"{self.name} was stopped") from None
        except PeerError as error:
            if self._process is not None and (said := self._process.last_words()):
                raise PeerError(error.kind, f"{error.problem}: {said}", error.remedy) from error
            raise

    async def _ask(self, body: dict[str, Any]) -> Heard:
        async with new_client(self.endpoint, self._limits) as client:
            task = asyncio.ensure_future(ask(client, self.endpoint, body, self._limits))
            with self._lock:
                self._under_way = asyncio.get_running_loop(), task
                if self._is_closed:
                    task.cancel()
            try:
                return await task
            finally:
                with self._lock:
                    self._under_way = None


def body_of(
    server: Endpoint, messages: Sequence[Message], sampling: SamplingParams, max_tokens: int
) -> dict[str, Any]:
    """A streamed chat request; raises UsageError for a constraint that has no common form."""
    usual = SamplingParams()
    names = [*_ALWAYS, *(_WHERE_DRAWN if sampling.temperature > 0 else ())]
    names += [name for name in _WHERE_ON if getattr(sampling, name) != getattr(usual, name)]
    body: dict[str, Any] = {
        "messages": [{"role": each.role, "content": each.content} for each in messages],
        "max_tokens": max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    body |= {name: getattr(sampling, name) for name in names}
    if server.model:
        body["model"] = server.model
    if sampling.penalty_last_n != usual.penalty_last_n:
        body["repeat_last_n"] = sampling.penalty_last_n
    if sampling.constraint is not None:
        if sampling.constraint.kind != "json_schema":
            raise UsageError(f"{server.name} takes no {sampling.constraint.kind}", "leave it out")
        schema = {"name": "answer", "schema": json.loads(sampling.constraint.text), "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


async def _with_model(server: Endpoint, limits: Limits) -> Endpoint:
    """The endpoint with its model's name: the one it has, unless one was named."""
    if server.model:
        return server
    first = replace(limits, answer_s=min(limits.answer_s, 30.0))
    async with new_client(server, first) as client:
        models = await models_of(client, server, first)
    if len(models) == 1:
        return replace(server, model=models[0])
    if not models:
        raise PeerError("garbage", f"{server.name} has no model", "load one there")
    listed = ", ".join(models[:5])
    raise PeerError("refused", f"{server.name} has several models", f"add one: #{listed}")


def _key(name: str) -> str:
    """The API key for this server, from the environment; "" for none."""
    own = f"{_KEY}_{re.sub('[^A-Z0-9]', '_', name.upper())}"
    return (os.environ.get(own) or os.environ.get(_KEY) or "").strip()
