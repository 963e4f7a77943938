"""Keeps foreign web pages out of the server: they could reach it through the user's own browser.

Two headers that a page cannot forge tell them apart:

- *Host*. A page on `evil.example` may have its name resolve to 127.0.0.1 after it was loaded (DNS
  rebinding); the browser then takes our answers for the page's own. Its Host header still says
  `evil.example`, so only names of this machine are served.
- *Origin*. A page may post a form here without reading the answer, to keep the machine busy. The
  browser names the page in Origin; web origins other than loopback, and the `null` of sandboxed
  frames, are refused. Programs send no Origin, extensions and desktop shells their own scheme.

CORS headers are sent to the pages that were named when the server was started, and to no other.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgespec.server.errors import ApiError
from edgespec.server.settings import ServerSettings, is_address, is_loopback, parse_origin

_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[^:\[\]]+)(?::[0-9]{0,5})?", re.IGNORECASE)
_PREFLIGHT = {
    "access-control-allow-methods": "GET, POST, DELETE",
    "access-control-allow-headers": "authorization, content-type, x-api-key, x-requested-with",
    "access-control-max-age": "600",
}


class OwnPagesOnly:
    """ASGI middleware that answers 403 to requests which come by way of a foreign web page."""

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app = app
        self._allowed_hosts = settings.allowed_hosts
        self._takes_addresses = settings.is_everywhere
        self._origins = settings.origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        is_named = origin is not None and parse_origin(origin) in self._origins
        if refusal := self._refusal(headers, origin, is_named=is_named):
            await refusal.response(scope["path"])(scope, receive, send)
        elif origin is None or not is_named:
            await self._app(scope, receive, send)
        elif scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            await Response(status_code=204, headers=_PREFLIGHT)(
                scope, receive, _with_origin(send, origin)
            )
        else:
            await self._app(scope, receive, _with_origin(send, origin))

    def _refusal(self, headers: Headers, origin: str | None, *, is_named: bool) -> ApiError | None:
        host = headers.get("host", "")
        match = _HOST.fullmatch(host)
        if match is None or not self._is_own(match["name"].lower()):
            return ApiError(
                403,
                f"the Host header {host!r} is not this machine; use http://localhost with the port",
                code="host_not_allowed",
            )
        if origin is not None and not is_named and not _is_harmless(origin):
            return ApiError(
                403,
                f"requests from web pages are refused (Origin {origin!r})",
                code="origin_not_allowed",
            )
        return None

    def _is_own(self, name: str) -> bool:
        if name in self._allowed_hosts:
            return True
        return self._takes_addresses and is_address(name.strip("[]"))


def _with_origin(send: Send, origin: str) -> Send:
    """Let the page read the answer."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["access-control-allow-origin"] = origin
            headers.add_vary_header("origin")
        await send(message)

    return sending


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
