"""POST /v1/embeddings, and Ollama's /api/embed and /api/embeddings: texts as vectors.

A vector is the mean of the target's final hidden states, of length 1. That is not what a model made
for embeddings gives, but it is there without one.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edgespec.errors import ContextOverflowError
from edgespec.server.errors import ApiError
from edgespec.server.fields import Body, Json, TokenIds
from edgespec.server.models import Served
from edgespec.server.openai.completions import check_tokens
from edgespec.server.service import Endpoint, Service, in_thread

_MOST_TEXTS = 128

OneText = str | TokenIds
Texts = OneText | Annotated[list[OneText], Field(min_length=1, max_length=_MOST_TEXTS)]
Vector = tuple[float, ...]


class EmbeddingBody(Body):
    """Body of POST /v1/embeddings."""

    model: str | None = None
    input: Texts
    encoding_format: Literal["float", "base64"] | None = None


class EmbedBody(Body):
    """Body of POST /api/embed; texts that are too long are cut unless `truncate` is false."""

    model: str
    input: str | Annotated[list[str], Field(max_length=_MOST_TEXTS)]
    truncate: bool | None = None


class OldEmbedBody(Body):
    """Body of POST /api/embeddings."""

    model: str
    prompt: str


class Embeddings:
    """The endpoints."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def openai(self, request: Request) -> Response:
        """Vectors in OpenAI's form."""
        body = await self._service.read(request, EmbeddingBody)
        given = body.input
        is_one = isinstance(given, str) or isinstance(given[0], int)
        texts: Sequence[OneText] = [given] if is_one else given  # type: ignore[list-item, assignment]
        served = await self._service.models.acquire(body.model)
        num_tokens, vectors = await self._embed(served, texts)
        as_text = body.encoding_format == "base64"
        data: list[Json] = [
            {
                "object": "embedding",
                "index": index,
                "embedding": _packed(vector) if as_text else list(vector),
            }
            for index, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": num_tokens, "total_tokens": num_tokens}
        return JSONResponse({"object": "list", "data": data, "model": served.name, "usage": usage})

    async def ollama(self, request: Request) -> Response:
        """Vectors in Ollama's form."""
        body = await self._service.read(request, EmbedBody)
        texts = [body.input] if isinstance(body.input, str) else body.input
        served = await self._service.models.acquire(body.model.removesuffix(":latest"))
        num_tokens, vectors = await self._embed(served, texts, cut=body.truncate is not False)
        return JSONResponse(
            {"model": served.name, "embeddings": vectors, "prompt_eval_count": num_tokens}
        )

    async def old_ollama(self, request: Request) -> Response:
        """One vector in Ollama's older form."""
        body = await self._service.read(request, OldEmbedBody)
        served = await self._service.models.acquire(body.model.removesuffix(":latest"))
        _, [vector] = await self._embed(served, [body.prompt], cut=True)
        return JSONResponse({"embedding": vector})

    async def _embed(
        self, served: Served, texts: Sequence[OneText], *, cut: bool = False
    ) -> tuple[int, list[Vector]]:
        """How many tokens the texts have, and their vectors; raises ApiError."""
        prompts = [await in_thread(_tokens, served, text, cut) for text in texts]
        async with self._service.embedding:
            vectors = [await in_thread(served.completer.embed, prompt) for prompt in prompts]
        return sum(map(len, prompts)), vectors


def _tokens(served: Served, text: OneText, cut: bool) -> Sequence[int]:
    most = served.details.num_embedded
    if not most:
        raise ApiError(501, "this model gives no embeddings", code="unsupported_endpoint")
    if isinstance(text, str):
        tokens: Sequence[int] = served.completer.tokenize(text, add_special=True)
    else:
        tokens = text
    check_tokens(tokens, served, "input")
    if cut:
        return tokens[:most]
    if len(tokens) > most:
        raise ContextOverflowError(
            f"a text of {len(tokens)} tokens; vectors are made of {most} at most",
            "send it in parts",
            len(tokens),
            most,
        )
    return tokens


def _packed(vector: Vector) -> str:
    """Base64 of little-endian float32, as OpenAI's client asks for."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")


def endpoints(service: Service) -> list[Endpoint]:
    """What this module serves."""
    embeddings = Embeddings(service)
    return [
        Endpoint(
            "POST",
            ("/v1/embeddings", "/embeddings"),
            embeddings.openai,
            "Texts as vectors.",
            EmbeddingBody,
        ),
        Endpoint(
            "POST", ("/api/embed",), embeddings.ollama, "Texts as vectors (Ollama).", EmbedBody
        ),
        Endpoint(
            "POST",
            ("/api/embeddings",),
            embeddings.old_ollama,
            "A text as a vector (Ollama).",
            OldEmbedBody,
        ),
    ]
