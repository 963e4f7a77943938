"""The HTTP interface: five paths over one completer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edgespec import __version__
from edgespec.protocols import Completer
from edgespec.server.answers import AnswerQueue
from edgespec.server.bodies import ChatBody, TextBody, parse_body
from edgespec.server.delivery import AnswerResponse
from edgespec.server.errors import EXCEPTION_HANDLERS, ApiError
from edgespec.server.forms import ChatForm, Json, TextForm
from edgespec.server.hosts import LoopbackOnly
from edgespec.server.settings import ServerSettings

STOP_TIMEOUT_S = 5.0


class Api:
    """The endpoints; answers come from `answers`, everything else is told at once."""

    def __init__(
        self, completer: Completer, answers: AnswerQueue, settings: ServerSettings
    ) -> None:
        self._completer = completer
        self._answers = answers
        self._settings = settings
        self._started = int(time.time())

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        body = parse_body(ChatBody, await self._read(request))
        stream = body.stream is True
        question = body.to_request(self._settings.default_sampling)
        form = ChatForm(
            self._completer.model.name,
            self._completer.decode_token,
            stream=stream,
            include_usage=body.include_usage,
        )
        return AnswerResponse(self._answers, question, form, stream=stream)

    async def text(self, request: Request) -> Response:
        """POST /v1/completions."""
        body = parse_body(TextBody, await self._read(request))
        question = body.to_request(self._settings.default_sampling)
        form = TextForm(
            self._completer.model.name,
            self._completer.decode_token,
            include_usage=body.include_usage,
        )
        return AnswerResponse(self._answers, question, form, stream=body.stream is True)

    async def models(self, _request: Request) -> Response:
        """GET /v1/models: the one that is loaded."""
        return JSONResponse({"object": "list", "data": [self._model()]})

    async def model(self, request: Request) -> Response:
        """GET /v1/models/NAME."""
        name = request.path_params["name"]
        served = self._completer.model.name
        if name != served:
            raise ApiError(
                404,
                f"the model {name!r} is not served here; {served!r} is",
                param="model",
                code="model_not_found",
            )
        return JSONResponse(self._model())

    async def health(self, _request: Request) -> Response:
        """GET /health: alive, and how busy."""
        return JSONResponse(
            {
                "status": "ok",
                "version": __version__,
                "model": self._completer.model.name,
                "answering": self._answers.is_answering,
                "waiting": self._answers.num_waiting,
                "max_waiting": self._settings.max_queue,
            }
        )

    def _model(self) -> Json:
        model = self._completer.model
        return {
            "id": model.name,
            "object": "model",
            "created": self._started,
            "owned_by": "edgespec",
            "meta": {
                "description": model.description,
                "num_context": model.num_context,
                "size_bytes": model.size_bytes,
                "drafter": model.drafter,
                "exactness": model.exactness,
            },
        }

    async def _read(self, request: Request) -> bytes:
        """The request's body; raises ApiError 413 before more than the limit is in memory."""
        limit = self._settings.max_body_bytes
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > limit:
            raise _too_large(limit)
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > limit:
                raise _too_large(limit)
        return bytes(body)


def _too_large(limit: int) -> ApiError:
    return ApiError(413, f"the body is larger than {limit} bytes", code="body_too_large")


def build_app(completer: Completer, settings: ServerSettings) -> Starlette:
    """The ASGI application; its lifespan starts and ends the worker thread of the answers."""
    return assemble(completer, AnswerQueue(completer, settings.max_queue), settings)


def assemble(completer: Completer, answers: AnswerQueue, settings: ServerSettings) -> Starlette:
    """As `build_app`, for those who need to hold the queue themselves."""
    api = Api(completer, answers, settings)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        answers.start()
        try:
            yield
        finally:
            answers.stop()
            await asyncio.to_thread(answers.join, STOP_TIMEOUT_S)

    app = Starlette(
        routes=[
            Route("/v1/chat/completions", api.chat, methods=["POST"]),
            Route("/v1/completions", api.text, methods=["POST"]),
            Route("/v1/models", api.models),
            Route("/v1/models/{name:path}", api.model),
            Route("/health", api.health),
        ],
        middleware=[Middleware(LoopbackOnly, allowed_hosts=settings.allowed_hosts)],
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app
