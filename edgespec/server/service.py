"""What all dialects share: the model and its queue, bodies read, answers sent, figures counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from edgespec.server.delivery import AnswerResponse
from edgespec.server.errors import ApiError
from edgespec.server.fields import AnyBody, parse_body
from edgespec.server.forms import AnswerForm
from edgespec.server.metrics import Metrics
from edgespec.server.models import Models, Served
from edgespec.server.settings import ServerSettings
from edgespec.types import CompletionRequest

DEFAULT_MAX_TOKENS = 4096
"""Most tokens of an answer to a request that sets no limit: others wait meanwhile."""

Value = TypeVar("Value")
Handler = Callable[[Request], Any]
Dialect = Literal["openai", "anthropic", "ollama"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One operation of the server; several `paths` may lead to it.

    `body` is what it takes, None for nothing. `streams` is the media type of its events, if it has
    any. `is_text` is True where the answer is no JSON, `is_list` where it may be a list.
    """

    method: Literal["GET", "POST"]
    paths: tuple[str, ...]
    handler: Handler
    summary: str
    body: type[BaseModel] | None = None
    streams: str | None = None
    is_text: bool = False
    is_list: bool = False


class Service:
    """What endpoints are made of."""

    def __init__(self, models: Models, settings: ServerSettings) -> None:
        self.models = models
        self.settings = settings
        self.metrics = Metrics()
        self.started = int(time.time())
        self.embedding = asyncio.Semaphore()

    async def read(self, request: Request, kind: type[AnyBody]) -> AnyBody:
        """The request's body; raises ApiError 400, 413 and 415."""
        return parse_body(kind, await self._raw(request))

    def respond(
        self,
        served: Served,
        questions: Sequence[CompletionRequest],
        form: AnswerForm,
        *,
        stream: bool,
    ) -> Response:
        """Ask the questions and answer in a form."""
        return AnswerResponse(
            served.answers,
            [_bounded(each) for each in questions],
            form,
            stream=stream,
            on_over=self.metrics.count,
        )

    async def _raw(self, request: Request) -> bytes:
        """The body's bytes; raises ApiError before more than the limit is in memory."""
        kind = request.headers.get("content-type", "application/json").partition(";")[0]
        if kind.strip().lower() != "application/json":
            raise ApiError(
                415,
                f"the body is {kind.strip()!r}; send JSON with Content-Type: application/json",
                code="unsupported_media_type",
            )
        limit = self.settings.max_body_bytes
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > limit:
            raise _too_large(limit)
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > limit:
                raise _too_large(limit)
        return bytes(body)


async def in_thread(act: Callable[..., Value], *arguments: object) -> Value:
    """Do what waits for the model's process, beside the event loop."""
    return await asyncio.to_thread(act, *arguments)


def _bounded(request: CompletionRequest) -> CompletionRequest:
    """With a limit where the client set none; one that asked for no limit has -1."""
    if request.max_tokens is None:
        return replace(request, max_tokens=DEFAULT_MAX_TOKENS)
    return replace(request, max_tokens=None) if request.max_tokens == -1 else request


def _too_large(limit: int) -> ApiError:
    return ApiError(413, f"the body is larger than {limit} bytes", code="body_too_large")
