"""POST /v1/messages: Anthropic's API."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edgespec.server.anthropic_form import MessageForm
from edgespec.server.fields import Body, Json, Limit, Share, StopStrings, Strict, invalid
from edgespec.server.models import Served
from edgespec.server.sampling import sampling_of
from edgespec.server.service import Endpoint, Service, in_thread
from edgespec.server.tools import Function, FunctionName, NamedChoice, Toolbox, ToolChoice, toolbox
from edgespec.types import CompletionRequest, Message, SamplingParams, TemplateValues, ToolCall


def _as_blocks(content: object) -> object:
    """A text is one block of text; blocks of other kinds than those of `Block` are refused."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if isinstance(content, list):
        for block in content:
            kind = block.get("type") if isinstance(block, dict) else None
            if kind not in ("text", "tool_use", "tool_result", "thinking", "redacted_thinking"):
                raise PydanticCustomError(
                    "unsupported", "Input should be text and tool blocks only"
                )
    return content


class Block(Strict):
    """A block of a turn: text, a call of a tool, what a call gave, or thoughts."""

    type: Literal["text", "tool_use", "tool_result", "thinking", "redacted_thinking"]
    text: str | None = None
    id: str | None = None
    name: str | None = None
    input: Json | None = None
    tool_use_id: str | None = None
    content: Blocks | None = None
    is_error: bool | None = None


Blocks = Annotated[list["Block"], BeforeValidator(_as_blocks)]
Block.model_rebuild()


class Turn(Strict):
    """One turn."""

    role: Literal["user", "assistant"]
    content: Blocks


class AnthropicTool(Strict):
    """A tool, its parameters as a JSON schema."""

    type: Literal["custom"] | None = None
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,128}$")]
    description: str | None = None
    input_schema: Json


class Choice(Strict):
    """Whether a tool must be called."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class PromptBody(Body):
    """Body of POST /v1/messages/count_tokens."""

    model: str | None = None
    messages: Annotated[list[Turn], Field(min_length=1)]
    system: Blocks | None = None
    tools: Annotated[list[AnthropicTool], Field(max_length=128)] | None = None
    tool_choice: Choice | None = None

    def toolbox(self, served: Served) -> Toolbox | None:
        """The tools that the answer may use; raises ApiError."""
        functions = [
            Function(name=tool.name, description=tool.description, parameters=tool.input_schema)
            for tool in self.tools or ()
        ]
        choice = self.tool_choice
        is_single = choice.disable_parallel_tool_use if choice is not None else None
        is_parallel = None if is_single is None else not is_single
        return toolbox(functions, _choice(choice), served.details, is_parallel=is_parallel)

    def asked(self, tools: Toolbox | None) -> CompletionRequest:
        """The conversation; raises ApiError."""
        first = [Message("system", _text(self.system))] if self.system else []
        messages = [*first, *(each for turn in self.messages for each in _messages(turn))]
        return CompletionRequest(
            prompt=tuple(messages),
            continue_final_message=messages[-1].role == "assistant" and not messages[-1].tool_calls,
            template=TemplateValues(tools.text if tools is not None else ""),
        )


class MessageBody(PromptBody):
    """Body of POST /v1/messages."""

    max_tokens: Annotated[Limit, Field(ge=1)]
    stop_sequences: StopStrings | None = None
    stream: bool | None = None
    temperature: Annotated[float, Field(ge=0)] | None = None
    top_k: Limit | None = None
    top_p: Share | None = None
    metadata: Json | None = None

    def question(self, default: SamplingParams, tools: Toolbox | None) -> CompletionRequest:
        """The question; raises ApiError."""
        given = {"temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p}
        constraint = tools.constraint(None) if tools is not None else None
        prompt = self.asked(tools)
        return CompletionRequest(
            prompt=prompt.prompt,
            sampling=sampling_of(given, default, constraint=constraint),
            max_tokens=self.max_tokens,
            stop=tuple(self.stop_sequences or ()),
            continue_final_message=prompt.continue_final_message,
            template=prompt.template,
        )


def _choice(choice: Choice | None) -> ToolChoice | None:
    if choice is None or choice.type == "auto":
        return "auto"
    if choice.type == "any":
        return "required"
    if choice.type == "none":
        return "none"
    if choice.name is None:
        raise invalid("tool_choice.name", "tool_choice.name is required with this type")
    return NamedChoice(type="function", function=FunctionName(name=choice.name))


def _text(blocks: Sequence[Block]) -> str:
    return "\n".join(block.text or "" for block in blocks if block.type == "text")


def _messages(turn: Turn) -> list[Message]:
    """A turn as templates know it: what calls gave are turns of their own."""
    if turn.role == "assistant":
        calls = tuple(
            ToolCall(block.name or "", json.dumps(block.input or {}), block.id or "")
            for block in turn.content
            if block.type == "tool_use"
        )
        return [Message("assistant", _text(turn.content), calls)]
    results = [
        Message("tool", _text(block.content or ()), tool_call_id=block.tool_use_id or "")
        for block in turn.content
        if block.type == "tool_result"
    ]
    has_text = any(block.type == "text" for block in turn.content)
    return [*results, *([Message("user", _text(turn.content))] if has_text or not results else [])]


class Messages:
    """The endpoints."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def create(self, request: Request) -> Response:
        """The assistant's next turn."""
        body = await self._service.read(request, MessageBody)
        served = await self._service.models.acquire(body.model)
        tools = body.toolbox(served)
        question = body.question(self._service.settings.default_sampling, tools)
        form = MessageForm(served, tools)
        return self._service.respond(served, [question], form, stream=body.stream is True)

    async def count(self, request: Request) -> Response:
        """How many tokens a conversation takes."""
        body = await self._service.read(request, PromptBody)
        served = await self._service.models.acquire(body.model)
        question = body.asked(body.toolbox(served))
        tokens = await in_thread(served.completer.encode, question)
        return JSONResponse({"input_tokens": len(tokens)})


def endpoints(service: Service) -> list[Endpoint]:
    """What this module serves."""
    messages = Messages(service)
    return [
        Endpoint(
            "POST",
            ("/v1/messages",),
            messages.create,
            "Answer a conversation (Anthropic).",
            MessageBody,
            streams="text/event-stream",
        ),
        Endpoint(
            "POST",
            ("/v1/messages/count_tokens",),
            messages.count,
            "Count the tokens of a conversation (Anthropic).",
            PromptBody,
        ),
    ]
