"""The HTTP interface: the endpoints of all dialects over the models of a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edgespec.protocols import TextCompleter
from edgespec.server import anthropic, native, native_completion, ollama, page
from edgespec.server.access import KeyCheck
from edgespec.server.description import describe
from edgespec.server.errors import EXCEPTION_HANDLERS
from edgespec.server.hosts import OwnPagesOnly
from edgespec.server.models import Models, Ready
from edgespec.server.openai import chat, completions, embeddings, models, responses
from edgespec.server.service import Endpoint, Service
from edgespec.server.settings import ServerSettings

STOP_TIMEOUT_S = 5.0

OPEN_PATHS = frozenset({"/health", "/v1/health", *page.PATHS})
"""Answered without a key."""

_DIALECTS = (
    *(chat, completions, responses, embeddings, models),
    *(anthropic, ollama, native_completion, native),
)


def build_app(completer: TextCompleter, settings: ServerSettings) -> Starlette:
    """The ASGI application over one model; its lifespan starts and ends the threads of answers."""
    return assemble(Models([Ready(completer)], settings), settings)


def assemble(models: Models, settings: ServerSettings) -> Starlette:
    """As `build_app`, over several models, for those who need to hold them themselves."""
    served = endpoints(Service(models, settings))

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        try:
            async with models.running():
                yield
        finally:
            await asyncio.to_thread(models.join, STOP_TIMEOUT_S)

    app = Starlette(
        routes=[
            *(
                Route(path, each.handler, methods=[each.method])
                for each in served
                for path in each.paths
            ),
            *page.routes(),
        ],
        middleware=[
            Middleware(OwnPagesOnly, settings=settings),
            Middleware(KeyCheck, keys=settings.api_keys, open_paths=OPEN_PATHS),
        ],
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app


def endpoints(service: Service) -> list[Endpoint]:
    """All operations of the server."""
    served = [each for dialect in _DIALECTS for each in dialect.endpoints(service)]

    async def description(_request: Request) -> Response:
        return JSONResponse(describe(served))

    served.append(Endpoint("GET", ("/openapi.json",), description, "This description."))
    return served
