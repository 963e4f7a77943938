"""Listens, serves until told to stop, and leaves in good order."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import sys
from collections.abc import Callable
from contextlib import closing
from typing import Any

import uvicorn
from starlette.applications import Starlette

from edgespec.errors import BusyError, UsageError
from edgespec.server.app import STOP_TIMEOUT_S, assemble
from edgespec.server.connections import bounded
from edgespec.server.models import Models
from edgespec.server.settings import ServerSettings

_KEEP_ALIVE_S = 75
_FLUSH_S = 2
_LOOK_S = 0.02
_BACKLOG = 128
_VERBOSE_LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {"uvicorn": {"handlers": ["stderr"], "level": "INFO", "propagate": False}},
}


def bind(settings: ServerSettings) -> socket.socket:
    """Take the port, so that a taken one is known before a model is loaded.

    Connections already wait in the listener's backlog until `serve` is called with it. Raises
    BusyError if the port is taken, UsageError if this user or machine cannot have it.
    """
    family = socket.AF_INET6 if ":" in settings.address else socket.AF_INET
    try:
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise _bind_error(settings, error) from error
    try:
        # Elsewhere: rebind a port whose last connections linger. On Windows the option would let
        # two servers share the port.
        if sys.platform != "win32":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.address, settings.port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise _bind_error(settings, error) from error
    return listener


def _bind_error(settings: ServerSettings, error: OSError) -> BusyError | UsageError:
    place = f"{settings.host} port {settings.port}"
    if error.errno == errno.EADDRINUSE:
        return BusyError(
            f"{place} is taken by another program", "stop it or choose another --port (0: any)"
        )
    return UsageError(
        f"cannot listen on {place}: {error.strerror or error}", "choose another --host or --port"
    )


def base_url(listener: socket.socket) -> str:
    """What an OpenAI client takes as its `base_url`, with the real port."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"


def _announce(url: str) -> None:
    print(f"EdgeSpec listens at {url} (Ctrl-C stops it)", file=sys.stderr, flush=True)


class Server(uvicorn.Server):
    """uvicorn, but answers end first: it would wait for them to finish by themselves."""

    def __init__(
        self,
        app: Starlette,
        models: Models,
        settings: ServerSettings,
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_ready` is called once connections are served; it may be called on any thread."""
        super().__init__(
            uvicorn.Config(
                app,
                loop="asyncio",
                http=bounded(settings.receive_s, settings.max_connections),
                ws="none",
                lifespan="on",
                log_config=_VERBOSE_LOGGING if settings.verbose else None,
                # Below verbose uvicorn has nothing to say to a user: its warnings are about other
                # people's malformed requests, its errors are tracebacks.
                log_level="info" if settings.verbose else logging.CRITICAL + 1,
                access_log=settings.verbose,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=_FLUSH_S,
            )
        )
        self._models = models
        self._grace_s = settings.grace_s
        self._on_ready = on_ready
        models.on_failure = self._leave

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let answers come to an end, cut those that do not, then end the connections.

        Who asks meanwhile is told so. A second Ctrl-C cuts at once.
        """
        self._models.drain()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._grace_s
        while self._models.is_answering and loop.time() < deadline and not self.force_exit:
            await asyncio.sleep(_LOOK_S)
        self._models.stop()
        await super().shutdown(sockets)

    def _leave(self) -> None:
        self.should_exit = True


def serve(
    models: Models,
    settings: ServerSettings,
    listener: socket.socket | None = None,
    announce: Callable[[str], None] = _announce,
) -> None:
    """Serve `models` until SIGINT or SIGTERM, the first from the moment that it is loaded.

    `listener` is what `bind` returned, bound here if not given; it is closed in the end.
    `announce` is told the base URL, with the real port, when connections are served. On a signal
    answers have `settings.grace_s` seconds to end, what is not over then is cut, and the signal is
    raised again for the handlers that were there before: for SIGINT that is KeyboardInterrupt. When
    this function is left, no completer is in use any more. Raises BusyError if the port is taken,
    and what kept the first model from being loaded.
    """
    listener = listener or bind(settings)
    app = assemble(models, settings)
    url = base_url(listener)
    server = Server(app, models, settings, lambda: announce(url))
    with closing(listener):
        try:
            server.run(sockets=[listener])
        finally:
            models.stop()
            models.join(STOP_TIMEOUT_S)
    if models.error is not None:
        raise models.error
