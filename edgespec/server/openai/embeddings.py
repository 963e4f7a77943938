"""POST /v1/embeddings and /api/embed: named, and refused."""

from __future__ import annotations

from typing import NoReturn

from starlette.requests import Request

from edgespec.server.errors import ApiError
from edgespec.server.service import Endpoint, Service


async def embed(_request: Request) -> NoReturn:
    """Say that there are none."""
    raise ApiError(
        501,
        "embeddings are not served here: use a model and a program made for them",
        code="unsupported_endpoint",
    )


def endpoints(_service: Service) -> list[Endpoint]:
    """What this module serves."""
    paths = ("/v1/embeddings", "/embeddings", "/api/embed", "/api/embeddings")
    return [Endpoint("POST", paths, embed, "Nothing: embeddings are not served.")]
