"""Every failure in the form that the clients of a path read.

OpenAI      {"error": {"message", "type", "param", "code"}}          everywhere else
Anthropic   {"type": "error", "error": {"type", "message"}}          /v1/messages
Ollama      {"error": "message"}                                     /api/
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from http import HTTPStatus

from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ExceptionHandler

from edgespec.errors import (
    BusyError,
    ContextOverflowError,
    EdgeSpecError,
    GrammarError,
    HostDied,
    NetworkError,
    UsageError,
)

INVALID_REQUEST = "invalid_request_error"
SERVER_ERROR = "server_error"
CLIENT_CLOSED_REQUEST = 499
"""nginx's status for a client that left; nobody is there to read it."""

_MAX_SHOWN_INPUT = 60
_log = logging.getLogger("edgespec.server")


class ApiError(Exception):
    """A failure with its HTTP status, told to the client as OpenAI would."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        figures: Mapping[str, int] | None = None,
    ) -> None:
        """`param` names the request field at fault, `code` is for programs to compare.

        `figures` are further numbers for programs.
        """
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = dict(headers or {})
        self.figures = dict(figures or {})

    @property
    def content(self) -> dict[str, object]:
        """The JSON object that OpenAI's clients read."""
        kind = SERVER_ERROR if self.status >= 500 else INVALID_REQUEST
        return {
            "error": {
                "message": self.message,
                "type": kind,
                "param": self.param,
                "code": self.code,
                **self.figures,
            }
        }

    def response(self, path: str = "") -> Response:
        """The whole HTTP answer, in the form of the clients that ask at `path`."""
        content = self.content
        if path.startswith("/v1/messages"):
            content = anthropic_content(self)
        elif path.startswith("/api/"):
            content = ollama_content(self)
        return JSONResponse(content, status_code=self.status, headers=self.headers)


def anthropic_content(error: ApiError) -> dict[str, object]:
    """An error as Anthropic's clients read it."""
    kind = _ANTHROPIC_KINDS.get(error.status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": error.message}}


_ANTHROPIC_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    415: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def ollama_content(error: ApiError) -> dict[str, object]:
    """An error as Ollama's clients read it."""
    return {"error": error.message}


class BusyApiError(BusyError):
    """Every place in the queue is taken; `retry_after_s` is when one may be free, in seconds."""

    def __init__(self, problem: str, remedy: str, retry_after_s: int) -> None:
        super().__init__(problem, remedy)
        self.retry_after_s = retry_after_s


def to_api_error(error: Exception) -> ApiError:
    """Give any exception its HTTP status, code and one-line message."""
    match error:
        case ApiError():
            return error
        case UsageError():
            return ApiError(400, str(error))
        case GrammarError():
            return ApiError(400, str(error), code="invalid_grammar")
        case ContextOverflowError():
            figures = {"n_prompt_tokens": error.num_prompt_tokens, "n_ctx": error.num_context}
            return ApiError(400, str(error), code="context_length_exceeded", figures=figures)
        case BusyApiError(retry_after_s=seconds):
            headers = {"Retry-After": str(seconds)}
            return ApiError(429, str(error), code="server_busy", headers=headers)
        case BusyError():
            return ApiError(503, str(error), code="server_busy", headers={"Retry-After": "1"})
        case HostDied():
            return ApiError(503, str(error), code="engine_died")
        case NetworkError():
            return ApiError(503, str(error), code="worker_unreachable")
        case EdgeSpecError():
            return ApiError(500, str(error))
        case _:
            return ApiError(500, f"internal error ({type(error).__name__})", code="internal_error")


def from_validation(error: ValidationError) -> ApiError:
    """Tell the first thing that is wrong with a request body, and in which field."""
    first = error.errors(include_url=False, include_context=False)[0]
    param = _field_path(first["loc"])
    if first["type"] == "json_invalid":
        return ApiError(400, f"the body is not JSON: {first['msg']}", code="invalid_json")
    if not param:
        return ApiError(400, "the body must be a JSON object", code="invalid_json")
    if first["type"] == "missing":
        return ApiError(400, f"{param} is required", param=param, code="missing_required_parameter")
    return ApiError(
        400, f"{param}: {first['msg']}{_shown(first['input'])}", param=param, code="invalid_value"
    )


_TYPE_TAG = re.compile(
    r"str|int|float|bool|[A-Z]\w*|(dict|list|tuple|literal|union|nullable|constrained|function"
    r"|model|chain|lax-or-strict|json-or-python|definition-ref)[-\[].*",
    re.DOTALL,
)


def _field_path(location: tuple[int | str, ...]) -> str:
    """Write a pydantic location as clients name fields, without the names of alternatives.

    >>> _field_path(("messages", 0, "content")), _field_path(("prompt", "list[int]", 0))
    ('messages[0].content', 'prompt[0]')
    """
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part != "[key]" and not (path and _TYPE_TAG.fullmatch(part)):
            path += f".{part}" if path else part
    return path


def _shown(value: object) -> str:
    """The value at fault, if it is short enough to be of help."""
    if not isinstance(value, str | int | float) or len(shown := ascii(value)) > _MAX_SHOWN_INPUT:
        return ""
    return f", not {shown}"


async def _on_error(request: Request, error: Exception) -> Response:
    return to_api_error(error).response(request.url.path)


async def _on_http(request: Request, error: Exception) -> Response:
    """404 and 405 of the router."""
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase.lower()
    message = f"{request.method} {request.url.path}: {phrase}"
    code = phrase.replace(" ", "_")
    return ApiError(error.status_code, message, code=code, headers=error.headers).response(
        request.url.path
    )


async def _on_gone(_request: Request, _error: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)


async def _on_bug(request: Request, error: Exception) -> Response:
    """A mistake of ours: one line for the person at the terminal, no traceback for the client."""
    _log.error("%s %s failed: %r", request.method, request.url.path, error)
    return to_api_error(error).response(request.url.path)


EXCEPTION_HANDLERS: Mapping[type[Exception], ExceptionHandler] = {
    ApiError: _on_error,
    EdgeSpecError: _on_error,
    HTTPException: _on_http,
    ClientDisconnect: _on_gone,
    Exception: _on_bug,
}
"""What Starlette calls for each kind of exception."""
