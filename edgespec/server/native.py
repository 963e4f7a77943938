"""llama-server's own endpoints besides: /tokenize, /props, /slots, /metrics and their like."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edgespec import __version__
from edgespec.server.fields import Body
from edgespec.server.metrics import CONTENT_TYPE
from edgespec.server.openai.completions import check_tokens, prompt_text
from edgespec.server.service import Endpoint, Service, in_thread


class TokenizeBody(Body):
    """Body of POST /tokenize."""

    model: str | None = None
    content: str
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False


class DetokenizeBody(Body):
    """Body of POST /detokenize."""

    model: str | None = None
    tokens: list[Annotated[int, Field(ge=0, le=2**31 - 1)]]


class Native:
    """The endpoints."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def tokenize(self, request: Request) -> Response:
        """The tokens of a text."""
        body = await self._service.read(request, TokenizeBody)
        completer = (await self._service.models.acquire(body.model)).completer

        def tokens() -> list[object]:
            found = completer.tokenize(
                body.content, add_special=body.add_special, parse_special=body.parse_special
            )
            if not body.with_pieces:
                return list(found)
            return [
                {"id": token, "piece": _piece(completer.decode_token(token))} for token in found
            ]

        return JSONResponse({"tokens": await in_thread(tokens)})

    async def detokenize(self, request: Request) -> Response:
        """The text of tokens."""
        body = await self._service.read(request, DetokenizeBody)
        served = await self._service.models.acquire(body.model)
        if body.tokens:  # none are the empty text
            check_tokens(body.tokens, served)
        text = await in_thread(prompt_text, body.tokens, served.completer.decode_token)
        return JSONResponse({"content": text})

    async def health(self, _request: Request) -> Response:
        """Alive, and how busy; 503 while the first model is loading."""
        models = self._service.models
        if models.is_loading:
            return JSONResponse({"status": "loading", "version": __version__}, status_code=503)
        answers = models.default.answers
        return JSONResponse(
            {
                "status": "ok",
                "version": __version__,
                "model": models.default.name,
                "answering": answers.is_answering,
                "waiting": answers.num_waiting,
                "max_waiting": self._service.settings.max_queue,
            }
        )

    async def props(self, request: Request) -> Response:
        """The model and how it is served."""
        served = await self._service.models.acquire(request.query_params.get("model"))
        model, sampling = served.completer.model, self._service.settings.default_sampling
        return JSONResponse(
            {
                "default_generation_settings": {
                    "n_ctx": model.num_context,
                    "params": {
                        "temperature": sampling.temperature,
                        "top_k": sampling.top_k,
                        "top_p": sampling.top_p,
                        "min_p": sampling.min_p,
                        "typical_p": sampling.typical_p,
                        "repeat_penalty": sampling.repeat_penalty,
                        "presence_penalty": sampling.presence_penalty,
                        "frequency_penalty": sampling.frequency_penalty,
                    },
                },
                "total_slots": self._service.settings.slots,
                "model_alias": model.name,
                "model_path": f"{model.name}.gguf",
                "modalities": {"vision": False, "audio": False},
                "chat_template": model.details.chat_template,
                "bos_token": model.details.bos_token,
                "eos_token": model.details.eos_token,
                "build_info": f"edgespec-{__version__}",
                "is_sleeping": False,
            }
        )

    async def slots(self, _request: Request) -> Response:
        """The places for answers of the first model; nothing of what is asked."""
        served = await self._service.models.acquire(None)
        num_slots = self._service.settings.slots
        return JSONResponse(
            [
                {
                    "id": index,
                    "n_ctx": served.completer.model.num_context,
                    "speculative": served.completer.model.drafter != "none",
                    "is_processing": index < served.answers.num_running,
                }
                for index in range(num_slots)
            ]
        )

    async def metrics(self, _request: Request) -> Response:
        """Figures for Prometheus."""
        queues = [served.answers for served in self._service.models.loaded()]
        text = self._service.metrics.text(
            sum(queue.num_running for queue in queues), sum(queue.num_waiting for queue in queues)
        )
        return Response(text, media_type=CONTENT_TYPE)


def _piece(raw: bytes) -> str | list[int]:
    """A token as llama-server shows it: a text, or bytes that are none."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return list(raw)


def endpoints(service: Service) -> list[Endpoint]:
    """What this module serves."""
    native = Native(service)
    return [
        Endpoint("POST", ("/tokenize",), native.tokenize, "Text to tokens.", TokenizeBody),
        Endpoint("POST", ("/detokenize",), native.detokenize, "Tokens to text.", DetokenizeBody),
        Endpoint("GET", ("/health", "/v1/health"), native.health, "Whether all is well."),
        Endpoint("GET", ("/props",), native.props, "The model and how it is served."),
        Endpoint("GET", ("/slots",), native.slots, "The places for answers.", is_list=True),
        Endpoint("GET", ("/metrics",), native.metrics, "Figures for Prometheus.", is_text=True),
    ]
