"""Every exception has its status, its type and one line."""

from __future__ import annotations

import json

import pytest

import edgespec.errors
from edgespec.errors import ContextOverflowError, EdgeSpecError
from edgespec.server.errors import ApiError, BusyApiError, to_api_error

WANTED = {
    "UsageError": (400, None),
    "GrammarError": (400, "invalid_grammar"),
    "ContextOverflowError": (400, "context_length_exceeded"),
    "BusyError": (503, "server_busy"),
    "HostDied": (503, "engine_died"),
    "NetworkError": (503, "worker_unreachable"),
}


def all_errors() -> list[type[EdgeSpecError]]:
    found = vars(edgespec.errors).values()
    return [kind for kind in found if isinstance(kind, type) and issubclass(kind, EdgeSpecError)]


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.__name__)
def test_every_error_of_edgespec_has_a_status(kind: type[EdgeSpecError]) -> None:
    error = to_api_error(kind("it broke", "mend it"))
    assert (error.status, error.code) == WANTED.get(kind.__name__, (500, None))
    assert error.message == "it broke; mend it"
    assert error.content == {
        "error": {
            "message": "it broke; mend it",
            "type": "server_error" if error.status >= 500 else "invalid_request_error",
            "param": None,
            "code": error.code,
            **error.figures,
        }
    }


def test_a_prompt_that_is_too_long_tells_the_figures_as_llama_server_does() -> None:
    error = to_api_error(ContextOverflowError("too long", "", 9, 8))
    assert error.figures == {"n_prompt_tokens": 9, "n_ctx": 8}


def test_each_dialect_has_its_own_form_of_errors() -> None:
    error = ApiError(404, "no such model")
    assert json.loads(bytes(error.response("/api/chat").body)) == {"error": "no such model"}
    assert json.loads(bytes(error.response("/v1/messages").body)) == {
        "type": "error",
        "error": {"type": "not_found_error", "message": "no such model"},
    }


def test_busy_says_when_to_come_back() -> None:
    assert to_api_error(BusyApiError("full", "wait", 7)).headers == {"Retry-After": "7"}
    assert to_api_error(edgespec.errors.BusyError("full")).headers == {"Retry-After": "1"}


def test_a_bug_tells_its_kind_and_keeps_its_text_to_itself() -> None:
    error = to_api_error(ZeroDivisionError("secret\npath"))
    assert (error.status, error.code) == (500, "internal_error")
    assert "ZeroDivisionError" in error.message
    assert "secret" not in error.message


def test_an_api_error_stays_what_it_is() -> None:
    error = ApiError(418, "no coffee", param="cup", code="teapot")
    assert to_api_error(error) is error
    assert error.content["error"] == {
        "message": "no coffee",
        "type": "invalid_request_error",
        "param": "cup",
        "code": "teapot",
    }
