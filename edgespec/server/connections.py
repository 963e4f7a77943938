"""Bounds on connections: how many are open, and how long a request may take to arrive.

uvicorn closes a connection that is idle after an answer, but none that never sends a whole request.
"""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n"
    b"Content-Length: 0\r\nConnection: close\r\n\r\n"
)


class BoundedProtocol(H11Protocol):
    """uvicorn's protocol with both bounds."""

    receive_s = 30.0
    max_connections = 512
    _overdue: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or turn it away where too many are open."""
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            transport.write(_FULL)
            transport.close()
        else:
            self._look()

    def data_received(self, data: bytes) -> None:
        """Look whether the request is whole."""
        if not self.transport.is_closing():
            super().data_received(data)
            self._look()

    def on_response_complete(self) -> None:
        """The next request may have begun."""
        super().on_response_complete()
        if self.conn.trailing_data[0]:
            self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _look(self) -> None:
        """A request, its body included, has so many seconds from its first byte on."""
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._stop_waiting()
        elif self._overdue is None:
            self._overdue = self.loop.call_later(self.receive_s, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None


def bounded(receive_s: float, max_connections: int) -> type[BoundedProtocol]:
    """The protocol with bounds of one's own."""
    bounds = {"receive_s": receive_s, "max_connections": max_connections}
    return type("BoundedProtocol", (BoundedProtocol,), bounds)
