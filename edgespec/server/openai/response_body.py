"""What clients of the Responses API send."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import Field

from edgespec.server.constraints import ANY_OBJECT, of_schema
from edgespec.server.errors import ApiError
from edgespec.server.fields import Body, Content, Json, Limit, Share, Strict, TopLogprobs, invalid
from edgespec.server.models import Served
from edgespec.server.sampling import sampling_of
from edgespec.server.tools import Function, NamedChoice, Toolbox, ToolChoice, toolbox
from edgespec.types import (
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
