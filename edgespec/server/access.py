"""Who may ask: API keys, and the name under which what a key's holder asked is kept apart."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Container, Sequence
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from edgespec.errors import UsageError
from edgespec.server.errors import ApiError

_OWNER = "edgespec.owner"


def read_keys(path: Path) -> tuple[str, ...]:
    """The keys in a file: one a line, empty lines and those that begin with # aside.

    Raises UsageError for a file that cannot be read or has none.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"cannot read keys from {path}: {reason}", "give another file") from error
    keys = tuple(line for line in lines if line and not line.startswith("#"))
    if not keys:
        raise UsageError(f"{path} has no keys", "write one a line")
    return keys


def owner_of(scope: Scope) -> str:
    """Whose request this is: "" where no keys are asked for, else a name that tells no key."""
    return str(scope.get(_OWNER, ""))


class KeyCheck:
    """ASGI middleware that answers 401 to requests without one of the keys; without keys, none."""

    def __init__(self, app: ASGIApp, keys: Sequence[str], open_paths: Container[str]) -> None:
        """`open_paths` need no key."""
        self._app = app
        self._open_paths = open_paths
        self._keys = [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, under its owner's name, or refuse it."""
        if self._keys and scope["type"] == "http":
            key = self._known(_given(Headers(scope=scope)))
            if key is not None:
                scope[_OWNER] = hashlib.sha256(key).hexdigest()[:24]
            elif scope["path"] not in self._open_paths:
                await _refusal().response(scope["path"])(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _known(self, given: bytes) -> bytes | None:
        """The key that was given; takes as long whichever it is, and if it is none."""
        found = None
        for key in self._keys:
            if hmac.compare_digest(key, given):
                found = key
        return found


def _given(headers: Headers) -> bytes:
    """What stands for a key in a request: a bearer token, as OpenAI has it, or x-api-key."""
    kind, _, token = headers.get("authorization", "").partition(" ")
    text = token.strip() if kind.lower() == "bearer" else headers.get("x-api-key", "")
    return text.encode("latin-1", "replace")


def _refusal() -> ApiError:
    return ApiError(
        401,
        "this server wants a valid API key: send Authorization: Bearer KEY",
        code="invalid_api_key",
        headers={"WWW-Authenticate": "Bearer"},
    )
