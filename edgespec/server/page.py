"""The chat at `/`: three files that ask `/v1/chat/completions` like any client.

They hold nothing of anybody, so they are given to whoever may reach the server; what they ask for
needs a key where one is set, which the page asks for.
"""

from __future__ import annotations

from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_FILES = {
    "/": ("index.html", "text/html"),
    "/page/page.css": ("page.css", "text/css"),
    "/page/page.js": ("page.js", "text/javascript"),
}
PATHS = tuple(_FILES)
"""Served without a key."""

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self';"
    " connect-src 'self'; img-src data:; base-uri 'none'; form-action 'self';"
    " frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def routes() -> list[Route]:
    """The page and what it is made of."""
    return [Route(path, _serve, methods=["GET"]) for path in PATHS]


async def _serve(request: Request) -> Response:
    name, media_type = _FILES[request.url.path]
    text = files("edgespec.server").joinpath("page_files", name).read_text(encoding="utf-8")
    return Response(text, media_type=media_type, headers=_HEADERS)
