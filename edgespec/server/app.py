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
from edgespec.server.access import KeyCheck
from edgespec.server.bodies import ChatBody, TextBody, parse_body
from edgespec.server.delivery import AnswerResponse
from edgespec.server.errors import EXCEPTION_HANDLERS, ApiError
from edgespec.server.forms import ChatForm, Json, TextForm
from edgespec.server.hosts import OwnPagesOnly
from edgespec.server.models import Models, Offer, Ready
from edgespec.server.settings import ServerSettings

STOP_TIMEOUT_S = 5.0


class Api:
    """The endpoints; each asks the model that a request names."""

    def __init__(self, models: Models, settings: ServerSettings) -> None:
        self._models = models
        self._settings = settings
        self._started = int(time.time())

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        body = parse_body(ChatBody, await self._read(request))
        stream = body.stream is True
        question = body.to_request(self._settings.default_sampling)
        served = await self._models.acquire(body.model)
        form = ChatForm(
            served.name,
            served.completer.decode_token,
            stream=stream,
            include_usage=body.include_usage,
        )
        return AnswerResponse(served.answers, question, form, stream=stream)

    async def text(self, request: Request) -> Response:
        """POST /v1/completions."""
        body = parse_body(TextBody, await self._read(request))
        question = body.to_request(self._settings.default_sampling)
        served = await self._models.acquire(body.model)
        form = TextForm(
            served.name,
            served.completer.decode_token,
            include_usage=body.include_usage,
        )
        return AnswerResponse(served.answers, question, form, stream=body.stream is True)

    async def models(self, _request: Request) -> Response:
        """GET /v1/models: those that can be asked for."""
        data = [self._model(offer) for offer in self._models.list()]
        return JSONResponse({"object": "list", "data": data})

    async def model(self, request: Request) -> Response:
        """GET /v1/models/NAME."""
        return JSONResponse(self._model(self._models.named(request.path_params["name"])))

    async def health(self, _request: Request) -> Response:
        """GET /health: alive, and how busy; 503 while the first model is loading."""
        if self._models.is_loading:
            return JSONResponse({"status": "loading", "version": __version__}, status_code=503)
        answers = self._models.default.answers
        return JSONResponse(
            {
                "status": "ok",
                "version": __version__,
                "model": self._models.default.name,
                "answering": answers.is_answering,
                "waiting": answers.num_waiting,
                "max_waiting": self._settings.max_queue,
            }
        )

    def _model(self, offer: Offer) -> Json:
        told: Json = {
            "id": offer.name,
            "object": "model",
            "created": self._started,
            "owned_by": "edgespec",
        }
        if (model := offer.model) is not None:
            told["meta"] = {
                "description": model.description,
                "num_context": model.num_context,
                "size_bytes": model.size_bytes,
                "drafter": model.drafter,
                "exactness": model.exactness,
            }
        return told

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
    """The ASGI application over one model; its lifespan starts and ends the threads of answers."""
    return assemble(Models([Ready(completer)], settings), settings)


def assemble(models: Models, settings: ServerSettings) -> Starlette:
    """As `build_app`, over several models, for those who need to hold them themselves."""
    api = Api(models, settings)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        try:
            async with models.running():
                yield
        finally:
            await asyncio.to_thread(models.join, STOP_TIMEOUT_S)

    app = Starlette(
        routes=[
            Route("/v1/chat/completions", api.chat, methods=["POST"]),
            Route("/v1/completions", api.text, methods=["POST"]),
            Route("/v1/models", api.models),
            Route("/v1/models/{name:path}", api.model),
            Route("/health", api.health),
        ],
        middleware=[
            Middleware(OwnPagesOnly, settings=settings),
            Middleware(KeyCheck, keys=settings.api_keys),
        ],
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app
