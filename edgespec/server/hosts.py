"""Keeps web pages out of the server: they could reach it through the user's own browser.

Two headers that a page cannot forge tell them apart:

- *Host*. A page on `evil.example` may have its name resolve to 127.0.0.1 after it was loaded (DNS
  rebinding); the browser then takes our answers for the page's own. Its Host header still says
  `evil.example`, so only loopback names are served.
- *Origin*. A page may post a form here without reading the answer, to keep the machine busy. The
  browser names the page in Origin; web origins other than loopback, and the `null` of sandboxed
  frames, are refused. Programs send no Origin, extensions and desktop shells their own scheme.

No CORS header is ever sent.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from edgespec.server.errors import ApiError
from edgespec.server.settings import is_loopback

_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[^:\[\]]+)(?::[0-9]{0,5})?", re.IGNORECASE)


class LoopbackOnly:
    """ASGI middleware that answers 403 to requests which come by way of a foreign web page."""

    def __init__(self, app: ASGIApp, allowed_hosts: Collection[str]) -> None:
        """`allowed_hosts` are lower-case names without port."""
        self._app = app
        self._allowed_hosts = frozenset(allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "http" and (refusal := self._refusal(Headers(scope=scope))):
            await refusal.response()(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, headers: Headers) -> ApiError | None:
        host = headers.get("host", "")
        match = _HOST.fullmatch(host)
        if match is None or match["name"].lower() not in self._allowed_hosts:
            return ApiError(
                403,
                f"the Host header {host!r} is not this machine; use http://localhost with the port",
                code="host_not_allowed",
            )
        origin = headers.get("origin")
        if origin is not None and not _is_harmless(origin):
            return ApiError(
                403,
                f"requests from web pages are refused (Origin {origin!r})",
                code="origin_not_allowed",
            )
        return None


def _is_harmless(origin: str) -> bool:
    """True for loopback pages and for schemes that no web page can have."""
    try:
        parts = urlsplit(origin)
        host = parts.hostname
    except ValueError:
        return False
    if parts.scheme in ("http", "https"):
        return host is not None and is_loopback(host)
    return bool(parts.scheme)
