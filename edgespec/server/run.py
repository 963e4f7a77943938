"""Listens, serves until told to stop, and leaves in good order."""

from __future__ import annotations

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
from edgespec.protocols import Completer
from edgespec.server.answers import AnswerQueue
from edgespec.server.app import STOP_TIMEOUT_S, assemble
from edgespec.server.settings import ServerSettings

_KEEP_ALIVE_S = 75
_GRACE_S = 2
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
        self, app: Starlette, answers: AnswerQueue, on_ready: Callable[[], None], *, verbose: bool
    ) -> None:
        """`on_ready` is called once connections are served; it may be called on any thread."""
        super().__init__(
            uvicorn.Config(
                app,
                loop="asyncio",
                http="h11",
                ws="none",
                lifespan="on",
                log_config=_VERBOSE_LOGGING if verbose else None,
                # Below verbose uvicorn has nothing to say to a user: its warnings are about other
                # people's malformed requests, its errors are tracebacks.
                log_level="info" if verbose else logging.CRITICAL + 1,
                access_log=verbose,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=_GRACE_S,
            )
        )
        self._answers = answers
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the answers, then the connections."""
        self._answers.stop()
        await super().shutdown(sockets)


def serve(
    completer: Completer,
    settings: ServerSettings,
    listener: socket.socket | None = None,
    announce: Callable[[str], None] = _announce,
) -> None:
    """Serve `completer` until SIGINT or SIGTERM.

    `listener` is what `bind` returned, bound here if not given; it is closed in the end.
    `announce` is told the base URL, with the real port, when connections are served. On a signal
    the answer under way is cancelled, its client told, and the signal raised again for the
    handlers that were there before: for SIGINT that is KeyboardInterrupt. When this function is
    left, `completer` is no longer in use. Raises BusyError if the port is taken.
    """
    listener = listener or bind(settings)
    answers = AnswerQueue(completer, settings.max_queue)
    app = assemble(completer, answers, settings)
    url = base_url(listener)
    server = Server(app, answers, lambda: announce(url), verbose=settings.verbose)
    with closing(listener):
        try:
            server.run(sockets=[listener])
        finally:
            answers.stop()
            answers.join(STOP_TIMEOUT_S)
