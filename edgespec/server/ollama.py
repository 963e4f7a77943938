"""Ollama's API: /api/chat, /api/generate and what its clients ask besides; errors are strings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edgespec import __version__
from edgespec.server.constraints import ANY_OBJECT, of_schema
from edgespec.server.errors import ApiError, ollama_content
from edgespec.server.fields import (
    Body,
    Json,
    Seed,
    Share,
    StopStrings,
    Strict,
    TopLogprobs,
    invalid,
    refuse_meaningful,
    unsupported,
)
from edgespec.server.figures import logprob_entries, speculation_of
from edgespec.server.forms import JsonLines, Told
from edgespec.server.models import Offer, Served
from edgespec.server.openai.completions import infill
from edgespec.server.sampling import sampling_of
from edgespec.server.service import Endpoint, Service, in_thread
from edgespec.server.speech import speech_of
from edgespec.server.tools import Toolbox, Tools, tool_form, toolbox
from edgespec.types import (
    Chunk,
    Completion,
    CompletionRequest,
    Constraint,
    Message,
    SamplingParams,
    TemplateValues,
    ToolCall,
)

_LEAST_VERSION = "0.13.0"
"""The version of Ollama whose API this is: some clients ask before they use what is newer."""


class Options(Body):
    """How the next token is chosen; what only says how to load a model is ignored."""

    seed: Seed | None = None
    num_predict: Annotated[int, Field(ge=-2, le=2**31 - 1)] | None = None
    stop: StopStrings | None = None
    temperature: Annotated[float, Field(ge=0)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None
    top_p: Share | None = None
    min_p: Share | None = None
    typical_p: Share | None = None
    repeat_last_n: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None
    repeat_penalty: Annotated[float, Field(gt=0)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None

    def sampling(
        self, default: SamplingParams, num_context: int, constraint: Constraint | None
    ) -> SamplingParams:
        """What these mean; raises ApiError."""
        refuse_meaningful(self.model_extra or {}, "options.")
        given = {name: getattr(self, name) for name in _SAMPLING}
        last_n = self.repeat_last_n
        given["penalty_last_n"] = num_context if last_n == -1 else last_n
        return sampling_of(given, default, seed=self.seed, constraint=constraint)


_SAMPLING = (
    *("temperature", "top_k", "top_p", "min_p", "typical_p", "repeat_penalty"),
    *("presence_penalty", "frequency_penalty"),
)


class AskBody(Body):
    """What both ways to ask have."""

    model: str
    stream: bool | None = None
    format: Literal["", "json"] | Json | None = None
    options: Options | None = None
    keep_alive: str | float | None = None
    think: bool | str | None = None
    logprobs: bool | None = None
    top_logprobs: TopLogprobs | None = None

    def question(
        self, served: Served, default: SamplingParams, constraint: Constraint | None
    ) -> CompletionRequest:
        """What is asked for, but for the prompt; raises ApiError."""
        if self.think not in (None, False):
            raise unsupported("think", f"{served.name!r} does not support thinking")
        options = self.options or Options()
        limit = options.num_predict
        return CompletionRequest(
            prompt="",
            sampling=options.sampling(default, served.completer.model.num_context, constraint),
            max_tokens=-1 if limit is not None and limit < 0 else limit,
            stop=tuple(options.stop or ()),
            num_top_logprobs=(self.top_logprobs or 0) if self.logprobs else None,
        )

    def constraint(self) -> Constraint | None:
        """What the answer must be."""
        if self.format in (None, ""):
            return None
        if self.format == "json":
            return ANY_OBJECT
        assert isinstance(self.format, dict)
        return of_schema(self.format, "format")

    @property
    def loads_only(self) -> bool:
        """Whether nothing is asked: clients have models loaded so."""
        return False


class CalledFunction(Strict):
    """A function that was called."""

    name: str
    arguments: Json | None = None


class GivenCall(Strict):
    """A call that the assistant made."""

    id: str = ""
    function: CalledFunction


class OllamaMessage(Strict):
    """One turn."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    images: Annotated[list[str], Field(max_length=0)] | None = None
    tool_calls: list[GivenCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None

    def message(self) -> Message:
        """The turn as templates know it."""
        calls = tuple(
            ToolCall(call.function.name, json.dumps(call.function.arguments or {}), call.id)
            for call in self.tool_calls or ()
        )
        return Message(
            self.role, self.content or "", calls, self.tool_call_id or "", self.tool_name or ""
        )


class ChatBody(AskBody):
    """Body of POST /api/chat."""

    messages: list[OllamaMessage] | None = None
    tools: Tools | None = None

    @property
    def loads_only(self) -> bool:
        """Without messages."""
        return not self.messages

    def toolbox(self, served: Served) -> Toolbox | None:
        """The tools that the answer may use; raises ApiError."""
        return toolbox([tool.function for tool in self.tools or ()], None, served.details)

    def asked(
        self, served: Served, default: SamplingParams, tools: Toolbox | None
    ) -> CompletionRequest:
        """The question; raises ApiError."""
        constraint = self.constraint()
        if tools is not None:
            constraint = tools.constraint(constraint)
        messages = tuple(message.message() for message in self.messages or ())
        return replace(
            self.question(served, default, constraint),
            prompt=messages,
            continue_final_message=messages[-1].role == "assistant" and not messages[-1].tool_calls,
            template=TemplateValues(tools.text if tools is not None else ""),
        )


class GenerateBody(AskBody):
    """Body of POST /api/generate."""

    prompt: str = ""
    suffix: str | None = None
    system: str | None = None
    raw: bool | None = None

    @property
    def loads_only(self) -> bool:
        """Without a prompt."""
        return not self.prompt and not self.suffix

    def asked(self, served: Served, default: SamplingParams) -> CompletionRequest:
        """The question: a turn of the user's, a gap, or plain text; raises ApiError."""
        question = self.question(served, default, self.constraint())
        if self.suffix:
            return replace(question, prompt_tokens=infill(self.prompt, self.suffix, served))
        if self.raw:
            return replace(question, prompt=self.prompt)
        first = (Message("system", self.system),) if self.system else ()
        return replace(question, prompt=(*first, Message("user", self.prompt)))


class ShowBody(Body):
    """Body of POST /api/show."""

    model: str | None = None
    name: str | None = None
    verbose: bool | None = None


class OllamaForm(JsonLines):
    """The objects of /api/chat and /api/generate, whole and in pieces."""

    def __init__(self, served: Served, tools: Toolbox | None, *, is_chat: bool) -> None:
        self._model = served.completer.model
        self._decode_token = served.completer.decode_token
        self._is_chat = is_chat
        self._speech = speech_of(tools)
        self._num_calls = 0

    def whole(self, answers: Sequence[Told]) -> Json:
        """All at once."""
        [told] = answers
        self._speech.feed(told.completion.text)
        self._speech.finish()
        said = self._said(self._speech.text, self._new_calls())
        if told.logprobs:
            said["logprobs"] = logprob_entries(told.logprobs, self._decode_token)
        return said | self._end(told.completion)

    def piece(self, _index: int, chunk: Chunk) -> list[Json]:
        """More of the text; calls are told when they are whole."""
        before = len(self._speech.text)
        self._speech.feed(chunk.text)
        text = self._speech.text[before:]
        if not text and not chunk.logprobs:
            return []
        said = self._said(text, [])
        if chunk.logprobs:
            said["logprobs"] = logprob_entries(chunk.logprobs, self._decode_token)
        return [said | {"done": False}]

    def ended(self, _index: int, completion: Completion) -> list[Json]:
        """The calls, then why the answer ended and what it took."""
        before = len(self._speech.text)
        self._speech.finish()
        text, calls = self._speech.text[before:], self._new_calls()
        events = [self._said(text, calls) | {"done": False}] if text or calls else []
        return [*events, self._said("", []) | self._end(completion)]

    def failure(self, error: ApiError) -> Json:
        """The event of an error."""
        return ollama_content(error)

    def _said(self, text: str, calls: list[Json]) -> Json:
        head: Json = {"model": self._model.name, "created_at": _time()}
        if not self._is_chat:
            return head | {"response": text}
        message: Json = {"role": "assistant", "content": text}
        return head | {"message": message | ({"tool_calls": calls} if calls else {})}

    def _new_calls(self) -> list[Json]:
        calls = []
        for call in self._speech.calls:
            try:
                arguments = json.loads(call.arguments)
            except ValueError:
                arguments = {"text": call.arguments}
            calls.append({"id": call.id, "function": {"name": call.name, "arguments": arguments}})
        return calls

    def _end(self, completion: Completion) -> Json:
        timings = completion.timings
        return {
            "done": True,
            "done_reason": completion.finish_reason,
            "total_duration": round((timings.prompt_ms + timings.decode_ms) * 1e6),
            "load_duration": 0,
            "prompt_eval_count": timings.num_prompt_tokens,
            "prompt_eval_duration": round(timings.prompt_ms * 1e6),
            "eval_count": len(completion.token_ids),
            "eval_duration": round(timings.decode_ms * 1e6),
            "speculation": speculation_of(completion, self._model),
        }


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
    head = {"model": served.name, "created_at": _time()}
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


def _time() -> str:
    return datetime.now(UTC).isoformat()


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
