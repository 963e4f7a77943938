"""POST /v1/responses, stateless: each request brings the whole conversation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from edgespec.server.constraints import ANY_OBJECT, of_schema
from edgespec.server.errors import ApiError
from edgespec.server.fields import (
    Body,
    Content,
    Json,
    Limit,
    Share,
    Strict,
    TopLogprobs,
    invalid,
)
from edgespec.server.figures import logprob_entries, speculation_of, timings_of
from edgespec.server.forms import NamedEvents, Told, new_id, now
from edgespec.server.models import Served
from edgespec.server.sampling import sampling_of
from edgespec.server.service import Endpoint, Service, in_thread
from edgespec.server.speech import Arguments, Begun, Part, Speech, Words, speech_of
from edgespec.server.tools import Function, NamedChoice, Toolbox, ToolChoice, toolbox
from edgespec.types import (
    Chunk,
    Completion,
    CompletionRequest,
    Constraint,
    Message,
    Role,
    SamplingParams,
    TemplateValues,
    ToolCall,
)

_LOGPROBS = "message.output_text.logprobs"
_ROLES: dict[str, Role] = {"developer": "system"}


class TextFormat(Strict):
    """The form that the text must have."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    definition: Json | None = Field(default=None, alias="schema")


class TextOptions(Strict):
    """How the text is to be."""

    format: TextFormat | None = None
    verbosity: Literal["medium"] | None = None


class FunctionTool(Function):
    """A function in the form of Responses, which is flat."""

    type: Literal["function"]


class FlatChoice(Strict):
    """A choice of one function."""

    type: Literal["function"]
    name: str


class Reasoning(Strict):
    """How much to think: a value for the chat template."""

    effort: str | None = None


class Item(Strict):
    """One item of the input: a message, a call, what a call gave, or thoughts."""

    type: Literal["message", "function_call", "function_call_output", "reasoning"] = "message"
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: Content = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: Content = None


class ResponseBody(Body):
    """Body of POST /v1/responses."""

    model: str | None = None
    input: str | Annotated[list[Item], Field(min_length=1)]
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: Limit | None = None
    temperature: Annotated[float, Field(ge=0)] | None = None
    top_p: Share | None = None
    top_logprobs: TopLogprobs | None = None
    include: list[str] | None = None
    text: TextOptions | None = None
    tools: Annotated[list[FunctionTool], Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | FlatChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    truncation: Literal["auto", "disabled"] | None = None
    metadata: dict[str, str] | None = None

    def toolbox(self, served: Served) -> Toolbox | None:
        """The tools that the answer may use; raises ApiError."""
        choice: ToolChoice | None = (
            NamedChoice.model_validate({"type": "function", "function": {"name": named.name}})
            if isinstance(named := self.tool_choice, FlatChoice)
            else named
        )
        given = self.parallel_tool_calls
        return toolbox(self.tools or [], choice, served.details, is_parallel=given)

    def asked(self, default: SamplingParams, tools: Toolbox | None) -> CompletionRequest:
        """The question; raises ApiError."""
        try:
            json.dumps(self.model_dump(include={"tools", "text"}), allow_nan=False)
        except ValueError as error:
            raise invalid("text", f"a schema is no JSON: {error}") from error
        if self.max_output_tokens == 0:
            raise invalid("max_output_tokens", "max_output_tokens must be at least 1")
        constraint = self._constraint()
        if tools is not None:
            constraint = tools.constraint(constraint)
        effort = self.reasoning.effort if self.reasoning is not None else None
        messages = self._messages()
        return CompletionRequest(
            prompt=messages,
            sampling=sampling_of(
                {"temperature": self.temperature, "top_p": self.top_p},
                default,
                constraint=constraint,
            ),
            max_tokens=self.max_output_tokens,
            num_top_logprobs=self._num_top_logprobs(),
            overflow="drop-oldest" if self.truncation == "auto" else "error",
            continue_final_message=messages[-1].role == "assistant" and not messages[-1].tool_calls,
            template=TemplateValues(
                tools.text if tools is not None else "",
                json.dumps({"reasoning_effort": effort}) if effort else "",
            ),
        )

    def _num_top_logprobs(self) -> int | None:
        wants = _LOGPROBS in (self.include or ())
        return (self.top_logprobs or 0) if wants or self.top_logprobs else None

    def _constraint(self) -> Constraint | None:
        wanted = self.text.format if self.text is not None else None
        if wanted is None or wanted.type == "text":
            return None
        if wanted.type == "json_object":
            return ANY_OBJECT
        return of_schema(wanted.definition, "text.format.schema")

    def _messages(self) -> tuple[Message, ...]:
        """The conversation: calls that follow one another are one turn of the assistant."""
        first = [Message("system", self.instructions)] if self.instructions else []
        if isinstance(self.input, str):
            return (*first, Message("user", self.input))
        messages: list[Message] = first
        for index, item in enumerate(self.input):
            if item.type == "reasoning":
                continue
            message = _message(item, index)
            last = messages[-1] if messages else None
            if item.type == "function_call" and last is not None and last.role == "assistant":
                calls = (*last.tool_calls, *message.tool_calls)
                messages[-1] = Message("assistant", last.content, calls)
            else:
                messages.append(message)
        if not messages:
            raise invalid("input", "input: there is no message")
        return tuple(messages)


def _message(item: Item, index: int) -> Message:
    def needed(name: str, value: str | None) -> str:
        if value is None:
            param = f"input[{index}].{name}"
            raise ApiError(
                400, f"{param} is required", param=param, code="missing_required_parameter"
            )
        return value

    if item.type == "function_call":
        name, arguments = needed("name", item.name), needed("arguments", item.arguments)
        return Message("assistant", "", (ToolCall(name, arguments, item.call_id or ""),))
    if item.type == "function_call_output":
        output = needed("output", item.output)
        return Message("tool", output, tool_call_id=needed("call_id", item.call_id))
    role = needed("role", item.role)
    content = needed("content", item.content)
    return Message(_ROLES.get(role) or role, content)  # type: ignore[arg-type]


class ResponseForm(NamedEvents):
    """`response`, and the events in which it grows: an item of output after the other."""

    def __init__(self, served: Served, tools: Toolbox | None, body: ResponseBody) -> None:
        self._model = served.completer.model
        self._decode_token = served.completer.decode_token
        self._speech: Speech = speech_of(tools)
        self._body = body
        self._number = 0
        self._open: Json | None = None
        self._items: list[Json] = []
        self._base = self._envelope()

    def whole(self, answers: Sequence[Told]) -> Json:
        """The response with all its output."""
        [told] = answers
        logprobs = logprob_entries(told.logprobs, self._decode_token)
        parts = [*self._speech.feed(told.completion.text), *self._speech.finish()]
        for part in parts:
            self._grow(part, logprobs)
            logprobs = []
        self._close()
        return self._over(told.completion)

    def opening(self) -> list[Json]:
        """That there is a response, and that it is being written."""
        return [
            self._event(f"response.{state}", response=self._base)
            for state in ("created", "in_progress")
        ]

    def piece(self, _index: int, chunk: Chunk) -> list[Json]:
        """More of the output."""
        logprobs = logprob_entries(chunk.logprobs, self._decode_token)
        events: list[Json] = []
        for part in self._speech.feed(chunk.text):
            events += self._grow(part, logprobs)
            logprobs = []
        return events

    def ended(self, _index: int, completion: Completion) -> list[Json]:
        """What was held back, and the whole response."""
        events = [event for part in self._speech.finish() for event in self._grow(part, [])]
        events += self._close()
        response = self._over(completion)
        return [*events, self._event(f"response.{response['status']}", response=response)]

    def failure(self, error: ApiError) -> Json:
        """The event of an error."""
        return self._event("error", code=error.code, message=error.message, param=error.param)

    def _grow(self, part: Part, logprobs: list[Json]) -> list[Json]:
        match part:
            case Words(text):
                return self._say(text, logprobs)
            case Begun(_, id_, name):
                events = self._close()
                item = {
                    "type": "function_call",
                    "id": new_id("fc_"),
                    "call_id": id_,
                    "name": name,
                    "arguments": "",
                    "status": "in_progress",
                }
                return [*events, self._begin(item)]
            case Arguments(_, text):
                assert self._open is not None
                self._open["arguments"] += text
                return [self._of_item("response.function_call_arguments.delta", delta=text)]

    def _say(self, text: str, logprobs: list[Json]) -> list[Json]:
        events: list[Json] = []
        if self._open is None or self._open["type"] != "message":
            events = self._close()
            part: Json = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            item: Json = {"type": "message", "id": new_id("msg_"), "role": "assistant"}
            events.append(self._begin(item | {"status": "in_progress", "content": []}))
            events.append(
                self._of_item("response.content_part.added", content_index=0, part=part.copy())
            )
            self._items[-1]["content"] = [part]
        assert self._open is not None
        said = self._open["content"][0]
        said["text"] += text
        said["logprobs"] = [*said["logprobs"], *logprobs]
        delta = {"content_index": 0, "delta": text, "logprobs": logprobs}
        return [*events, self._of_item("response.output_text.delta", **delta)]

    def _begin(self, item: Json) -> Json:
        self._open = item
        self._items.append(item)
        return self._event(
            "response.output_item.added", output_index=len(self._items) - 1, item=item.copy()
        )

    def _close(self) -> list[Json]:
        """The item under way is whole."""
        item = self._open
        if item is None:
            return []
        events: list[Json] = []
        if item["type"] == "message":
            part = item["content"][0]
            text = {"text": part["text"], "logprobs": part["logprobs"]}
            events = [
                self._of_item("response.output_text.done", content_index=0, **text),
                self._of_item("response.content_part.done", content_index=0, part=part.copy()),
            ]
        else:
            told = {"arguments": item["arguments"], "name": item["name"]}
            events = [self._of_item("response.function_call_arguments.done", **told)]
        item["status"] = "completed"
        self._open = None
        where = {"output_index": len(self._items) - 1}
        return [*events, self._event("response.output_item.done", **where, item=item.copy())]

    def _over(self, completion: Completion) -> Json:
        is_cut = completion.finish_reason == "length"
        timings = completion.timings
        num_said = len(completion.token_ids)
        return self._base | {
            "status": "incomplete" if is_cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "output": self._items,
            "usage": {
                "input_tokens": timings.num_prompt_tokens,
                "input_tokens_details": {
                    "cached_tokens": timings.num_cached_tokens,
                    "cache_write_tokens": 0,
                },
                "output_tokens": num_said,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": timings.num_prompt_tokens + num_said,
            },
            "timings": timings_of(timings, completion.stats),
            "speculation": speculation_of(completion, self._model),
        }

    def _envelope(self) -> Json:
        body = self._body
        given = body.model_dump(by_alias=True, exclude_none=True)
        return {
            "id": new_id("resp_"),
            "object": "response",
            "created_at": now(),
            "status": "in_progress",
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": body.metadata or {},
            "model": self._model.name,
            "output": [],
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "previous_response_id": None,
            "reasoning": given.get("reasoning", {}),
            "store": False,
            "temperature": body.temperature,
            "text": {"format": given.get("text", {}).get("format", {"type": "text"})},
            "tool_choice": given.get("tool_choice", "auto"),
            "tools": [
                {"strict": False, "parameters": None} | tool for tool in given.get("tools", [])
            ],
            "top_logprobs": body.top_logprobs or 0,
            "top_p": body.top_p,
            "truncation": body.truncation or "disabled",
            "usage": None,
        }

    def _of_item(self, kind: str, **fields: Any) -> Json:  # noqa: ANN401
        assert self._items
        where = {"item_id": self._items[-1]["id"], "output_index": len(self._items) - 1}
        return self._event(kind, **where, **fields)

    def _event(self, kind: str, **fields: Any) -> Json:  # noqa: ANN401
        self._number += 1
        return {"type": kind, "sequence_number": self._number - 1, **fields}


class Responses:
    """The endpoint."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def respond(self, request: Request) -> Response:
        """The assistant's next turn, as items of output."""
        body = await self._service.read(request, ResponseBody)
        served = await self._service.models.acquire(body.model)
        tools = body.toolbox(served)
        question = await in_thread(body.asked, self._service.settings.default_sampling, tools)
        form = ResponseForm(served, tools, body)
        return self._service.respond(served, [question], form, stream=body.stream is True)

    async def kept(self, request: Request) -> Response:
        """Responses are not stored."""
        raise ApiError(
            404,
            f"the response {request.path_params['id']!r} is not stored: no response is",
            code="response_not_found",
        )


def endpoints(service: Service) -> list[Endpoint]:
    """What this module serves."""
    responses = Responses(service)
    return [
        Endpoint(
            "POST",
            ("/v1/responses", "/responses"),
            responses.respond,
            "Answer a conversation.",
            ResponseBody,
            streams="text/event-stream",
        ),
        Endpoint("GET", ("/v1/responses/{id}",), responses.kept, "Nothing: none is stored."),
    ]
