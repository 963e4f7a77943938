"""Anthropic's API as the `anthropic` package sees it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic
from server_support import EchoCompleter, Running, post

from edgespec.types import Message, ToolCall

TOOL: Any = {"name": "weather", "input_schema": {"type": "object", "properties": {}}}
CALL = 'Well.<tool_call>\n{"name": "weather", "arguments": {"town": "Ulm"}}\n</tool_call>'


@pytest.fixture
def client(server: Running, completer: EchoCompleter) -> Iterator[Anthropic]:
    completer.requests.clear()
    completer.says = None
    base_url = server.url.removesuffix("/v1")
    with Anthropic(base_url=base_url, api_key="none", max_retries=0, timeout=10) as it:
        yield it


def say(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def test_a_message(client: Anthropic, completer: EchoCompleter) -> None:
    made = client.messages.create(
        model="any", max_tokens=50, system="Echo.", messages=say("Grüße"), temperature=0.5, top_k=3
    )
    assert [block.to_dict() for block in made.content] == [{"type": "text", "text": "Grüße"}]
    assert (made.role, made.stop_reason, made.stop_sequence) == ("assistant", "end_turn", None)
    assert made.usage.output_tokens == len("Grüße".encode()) + 1
    assert made.usage.cache_read_input_tokens == 3
    (request,) = completer.requests
    assert request.prompt == (Message("system", "Echo."), Message("user", "Grüße"))
    assert (request.sampling.temperature, request.sampling.top_k) == (0.5, 3)


def test_why_a_message_ended(client: Anthropic) -> None:
    cut = client.messages.create(model="any", max_tokens=3, messages=say("too long"))
    assert (cut.stop_reason, cut.content[0].to_dict()["text"]) == ("max_tokens", "too")
    stopped = client.messages.create(
        model="any", max_tokens=30, messages=say("a b c"), stop_sequences=["c", "b"]
    )
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "b")


def test_events_build_the_same_message(client: Anthropic, completer: EchoCompleter) -> None:
    completer.says = CALL
    with client.messages.stream(
        model="any", max_tokens=99, messages=say("?"), tools=[TOOL]
    ) as stream:
        kinds = [event.type for event in stream]
        made = stream.get_final_message()
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 2
    whole = client.messages.create(model="any", max_tokens=99, messages=say("?"), tools=[TOOL])
    for message in (made, whole):
        text, call = message.content
        assert text.type == "text"
        assert text.text == "Well."
        assert call.type == "tool_use"
        assert (call.name, call.input) == ("weather", {"town": "Ulm"})
        assert message.stop_reason == "tool_use"
        assert message.usage.output_tokens == len(CALL) + 1


def test_calls_and_what_they_gave(client: Anthropic, completer: EchoCompleter) -> None:
    messages: Any = [
        *say("?"),
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Well."},
                {"type": "tool_use", "id": "t", "name": "weather", "input": {"town": "Ulm"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t", "content": "sun"},
                {"type": "text", "text": "And?"},
            ],
        },
    ]
    choice: Any = {"type": "any", "disable_parallel_tool_use": True}
    client.messages.create(
        model="any", max_tokens=9, messages=messages, tools=[TOOL], tool_choice=choice
    )
    (request,) = completer.requests
    assert request.prompt == (
        Message("user", "?"),
        Message("assistant", "Well.", (ToolCall("weather", '{"town": "Ulm"}', "t"),)),
        Message("tool", "sun", tool_call_id="t"),
        Message("user", "And?"),
    )
    assert request.sampling.constraint is not None
    assert request.sampling.constraint.kind == "lark"


def test_tokens_are_counted(client: Anthropic, completer: EchoCompleter) -> None:
    plain = client.messages.count_tokens(model="any", messages=say("four"))
    assert plain.input_tokens == len("user: four\nassistant: ")
    tools = client.messages.count_tokens(model="any", messages=say("four"), tools=[TOOL])
    assert tools.input_tokens > plain.input_tokens
    assert completer.requests == []


def test_a_turn_that_is_begun_goes_on(client: Anthropic, completer: EchoCompleter) -> None:
    messages = [*say("?"), {"role": "assistant", "content": "It is"}]
    client.messages.create(model="any", max_tokens=9, messages=messages)
    assert completer.requests[0].continue_final_message


def test_errors_are_those_of_the_client_library(client: Anthropic, server: Running) -> None:
    with pytest.raises(anthropic.BadRequestError, match="shorten it"):
        client.messages.create(model="any", max_tokens=9, messages=say("x" * 5000))
    image: Any = [{"type": "image", "source": {"type": "url", "url": "x"}}]
    with pytest.raises(anthropic.BadRequestError, match="text and tool blocks only"):
        client.messages.create(
            model="any", max_tokens=9, messages=[{"role": "user", "content": image}]
        )
    with pytest.raises(anthropic.BadRequestError, match="thinking is not supported"):
        client.messages.create(
            model="any",
            max_tokens=9,
            messages=say("x"),
            thinking={"type": "enabled", "budget_tokens": 1024},
        )
    reply = post(server, "/v1/messages", {"max_tokens": 5})
    assert reply.json == {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": "messages is required"},
    }


def test_fields_of_other_apis_are_refused_where_they_are_not_served(server: Running) -> None:
    asked = {"max_tokens": 5, "messages": say("x")}
    for field, value in (("stop", ["x"]), ("seed", 5), ("n", 2), ("response_format", {})):
        reply = post(server, "/v1/messages", asked | {field: value})
        assert (reply.status, reply.json["error"]["message"]) == (400, f"{field} is not supported")
    assert post(server, "/v1/messages", asked | {"n": 1, "metadata": {}}).status == 200
