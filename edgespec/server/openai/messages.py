"""Conversations in OpenAI's form."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

from edgespec.server.errors import ApiError
from edgespec.server.fields import Content, Json, Strict, invalid
from edgespec.types import Message, Role, ToolCall

_ROLES: dict[str, Role] = {"developer": "system", "function": "tool"}


class CalledFunction(Strict):
    """A function that was called; `arguments` is JSON text, or an object."""

    name: str
    arguments: str | Json = ""


class GivenCall(Strict):
    """A call that the assistant made in an earlier turn."""

    id: str = ""
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(Strict):
    """One turn; only an assistant's turn may lack text."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Content = None
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: list[GivenCall] | None = None


def conversation(messages: Sequence[ChatMessage]) -> tuple[Message, ...]:
    """The turns; raises ApiError where one says nothing."""
    return tuple(_message(message, index) for index, message in enumerate(messages))


def continues(messages: Sequence[ChatMessage], asked: bool | None) -> bool:
    """Whether the answer goes on with the last turn, which is the assistant's; raises ApiError.

    As in llama-server that is so where a conversation ends in such a turn, unless it was said
    otherwise.
    """
    ends_open = messages[-1].role == "assistant" and not messages[-1].tool_calls
    if asked is False:
        return False
    if asked and not ends_open:
        raise invalid("continue_final_message", "the last message is not the assistant's")
    if ends_open and len(messages) > 1 and messages[-2].role == "assistant":
        raise invalid("messages", "the conversation ends in two messages of the assistant")
    return ends_open


def _message(message: ChatMessage, index: int) -> Message:
    if message.content is None and message.role != "assistant":
        param = f"messages[{index}].content"
        raise ApiError(400, f"{param} is required", param=param, code="missing_required_parameter")
    role: Role = _ROLES.get(message.role) or message.role  # type: ignore[assignment]
    return Message(
        role,
        message.content or "",
        tuple(map(_call, message.tool_calls or ())),
        message.tool_call_id or "",
        message.name or "",
    )


def _call(call: GivenCall) -> ToolCall:
    given = call.function.arguments
    return ToolCall(
        call.function.name, given if isinstance(given, str) else json.dumps(given), call.id
    )
