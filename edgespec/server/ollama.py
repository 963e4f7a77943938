"""Ollama's API: /api/chat, /api/generate and what its clients ask besides; errors are strings."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edgespec import __version__
from edgespec.server.errors import ApiError
from edgespec.server.fields import Json, invalid
from edgespec.server.models import Offer, Served
from edgespec.server.ollama_bodies import ChatBody, GenerateBody, ShowBody
from edgespec.server.ollama_form import OllamaForm, time_now
from edgespec.server.service import Endpoint, Service, in_thread
from edgespec.server.tools import tool_form

_LEAST_VERSION = "0.13.0"
"""The version of Ollama whose API this is: some clients ask before they use what is newer."""


class Ollama:
    """The endpoints."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def chat(self, request: Request) -> Response:
        """The assistant's next turn."""
        body = await self._service.read(request, ChatBody)
        served = await self._acquire(body.model)
        if body.loads_only:
            return _loaded(served, is_chat=True)
        tools = body.toolbox(served)
        question = body.asked(served, self._service.settings.default_sampling, tools)
        form = OllamaForm(served, tools, is_chat=True)
        return self._service.respond(served, [question], form, stream=body.stream is not False)

    async def generate(self, request: Request) -> Response:
        """An answer to one prompt."""
        body = await self._service.read(request, GenerateBody)
        served = await self._acquire(body.model)
        if body.loads_only:
            return _loaded(served, is_chat=False)
        default = self._service.settings.default_sampling
        question = await in_thread(body.asked, served, default)
        form = OllamaForm(served, None, is_chat=False)
        return self._service.respond(served, [question], form, stream=body.stream is not False)

    async def tags(self, _request: Request) -> Response:
        """The models that can be asked for."""
        return JSONResponse({"models": [self._tag(each) for each in self._service.models.list()]})

    async def running(self, _request: Request) -> Response:
        """The models that are loaded."""
        loaded = [each for each in self._service.models.list() if each.is_loaded]
        return JSONResponse(
            {
                "models": [
                    self._tag(each)
                    | {
                        "size_vram": 0,
                        "expires_at": "9999-12-31T23:59:59Z",
                        "context_length": each.model.num_context if each.model else 0,
                    }
                    for each in loaded
                ]
            }
        )

    async def show(self, request: Request) -> Response:
        """What is known of one model."""
        body = await self._service.read(request, ShowBody)
        name = body.model or body.name
        if name is None:
            raise invalid("model", "model is required")
        served = await self._acquire(name)
        model, details = served.completer.model, served.details
        kind = details.architecture
        return JSONResponse(
            {
                "modelfile": f"FROM {model.name}\n",
                "parameters": "",
                "template": details.chat_template,
                "details": _details(Offer(model.name, model.size_bytes, model, is_loaded=True)),
                "model_info": {
                    "general.architecture": kind,
                    "general.parameter_count": details.num_parameters,
                    f"{kind}.context_length": details.num_context_train,
                    f"{kind}.embedding_length": details.num_embedding,
                },
                "capabilities": _capabilities(served),
                "modified_at": self._started,
            }
        )

    async def version(self, _request: Request) -> Response:
        """The version of Ollama whose API this is, and ours."""
        return JSONResponse({"version": _LEAST_VERSION, "edgespec": __version__})

    async def _acquire(self, name: str) -> Served:
        """The model of a name; Ollama's clients add a tag."""
        return await self._service.models.acquire(name.removesuffix(":latest"))

    @property
    def _started(self) -> str:
        return datetime.fromtimestamp(self._service.started, UTC).isoformat()

    def _tag(self, offer: Offer) -> Json:
        return {
            "name": offer.name,
            "model": offer.name,
            "modified_at": self._started,
            "size": offer.num_bytes or (offer.model.size_bytes if offer.model else 0),
            "digest": hashlib.sha256(offer.name.encode()).hexdigest(),
            "details": _details(offer),
        }


def _loaded(served: Served, *, is_chat: bool) -> Response:
    """Nothing was asked: the model is loaded."""
    said: Json = {"message": {"role": "assistant", "content": ""}} if is_chat else {"response": ""}
    head = {"model": served.name, "created_at": time_now()}
    return JSONResponse({**head, **said, "done": True, "done_reason": "load"})


def _details(offer: Offer) -> Json:
    details = offer.model.details if offer.model is not None else None
    family = details.architecture if details else ""
    size = f"{details.num_parameters / 1e9:.1f}B" if details and details.num_parameters else ""
    return {
        "parent_model": "",
        "format": "gguf",
        "family": family,
        "families": [family] if family else [],
        "parameter_size": size,
        "quantization_level": details.quantization if details else "",
    }


def _capabilities(served: Served) -> list[str]:
    capabilities = ["completion"]
    try:
        tool_form(served.details)
        capabilities.append("tools")
    except ApiError:
        pass
    if served.details.infill_tokens is not None:
        capabilities.append("insert")
    return capabilities


def endpoints(service: Service) -> list[Endpoint]:
    """What this module serves."""
    ollama = Ollama(service)
    lines = "application/x-ndjson"
    return [
        Endpoint(
            "POST",
            ("/api/chat",),
            ollama.chat,
            "Answer a conversation (Ollama).",
            ChatBody,
            streams=lines,
        ),
        Endpoint(
            "POST",
            ("/api/generate",),
            ollama.generate,
            "Answer a prompt (Ollama).",
            GenerateBody,
            streams=lines,
        ),
        Endpoint("GET", ("/api/tags",), ollama.tags, "List the models (Ollama)."),
        Endpoint("GET", ("/api/ps",), ollama.running, "List the loaded models (Ollama)."),
        Endpoint("POST", ("/api/show",), ollama.show, "Tell of one model (Ollama).", ShowBody),
        Endpoint("GET", ("/api/version",), ollama.version, "The version of the API (Ollama)."),
    ]
