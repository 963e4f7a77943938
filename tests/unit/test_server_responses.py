"""The Responses API as the `openai` package sees it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.responses import Response
from server_support import EchoCompleter, Running, post

from edgespec.types import Constraint, Message, ToolCall

PATH = "/v1/responses"
TOOL: Any = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {}},
    "strict": True,
}
CALL = 'Well.<tool_call>\n{"name": "weather", "arguments": {"town": "Ulm"}}\n</tool_call>'


@pytest.fixture
def client(server: Running, completer: EchoCompleter) -> Iterator[OpenAI]:
    completer.requests.clear()
    completer.says = None
    with OpenAI(base_url=server.url, api_key="none", max_retries=0, timeout=10) as it:
        yield it


def test_a_text(client: OpenAI, completer: EchoCompleter) -> None:
    made = client.responses.create(model="any", input="Grüße", instructions="Echo.")
    assert made.output_text == "Grüße"
    assert (made.status, made.instructions) == ("completed", "Echo.")
    assert made.usage is not None
    assert made.usage.output_tokens == len("Grüße".encode()) + 1
    assert completer.requests[0].prompt == (Message("system", "Echo."), Message("user", "Grüße"))


def test_items_are_a_conversation(client: OpenAI, completer: EchoCompleter) -> None:
    items: Any = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "input_text", "text": "?"}]},
        {"type": "reasoning", "id": "r", "summary": []},
        {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"},
        {"type": "function_call", "call_id": "b", "name": "g", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "a", "output": "1"},
        {"role": "user", "content": "and?"},
    ]
    client.responses.create(model="any", input=items)
    assert completer.requests[0].prompt == (
        Message("system", "Be brief."),
        Message("user", "?"),
        Message("assistant", "", (ToolCall("f", "{}", "a"), ToolCall("g", "{}", "b"))),
        Message("tool", "1", tool_call_id="a"),
        Message("user", "and?"),
    )


def test_events_build_the_same_response(client: OpenAI, completer: EchoCompleter) -> None:
    completer.says = CALL
    with client.responses.stream(model="any", input="?", tools=[TOOL]) as stream:
        kinds = [event.type for event in stream]
        made = stream.get_final_response()
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-1] == "response.completed"
    assert kinds.count("response.output_item.done") == 2
    assert "response.function_call_arguments.delta" in kinds
    text, call = made.output
    assert made.output_text == "Well."
    assert text.type == "message"
    assert call.type == "function_call"
    assert (call.name, json.loads(call.arguments)) == ("weather", {"town": "Ulm"})
    whole = client.responses.create(model="any", input="?", tools=[TOOL])
    assert [item.type for item in whole.output] == ["message", "function_call"]
    assert whole.output[1].to_dict()["arguments"] == call.arguments


def test_an_answer_that_is_cut_is_incomplete(client: OpenAI) -> None:
    made = client.responses.create(model="any", input="too long", max_output_tokens=3)
    assert (made.status, made.output_text) == ("incomplete", "too")
    assert made.incomplete_details is not None
    assert made.incomplete_details.reason == "max_output_tokens"


def test_formats_logprobs_and_truncation(client: OpenAI, completer: EchoCompleter) -> None:
    schema: Any = {"type": "json_schema", "name": "s", "schema": {"type": "integer"}}
    made = client.responses.create(
        model="any",
        input="7",
        text={"format": schema},
        include=["message.output_text.logprobs"],
        truncation="auto",
    )
    (request,) = completer.requests
    assert request.sampling.constraint == Constraint("json_schema", '{"type": "integer"}')
    assert request.overflow == "drop-oldest"
    content = made.output[0].to_dict()["content"]
    assert content[0]["logprobs"][0]["token"] == "7"  # type: ignore[index]


def test_whole_responses_are_what_the_client_library_declares(server: Running) -> None:
    reply = post(server, PATH, {"input": "x", "tools": [TOOL], "tool_choice": "none"})
    Response.model_validate(reply.json, strict=True)


def test_what_is_not_served_is_refused(client: OpenAI, server: Running) -> None:
    for field, value in (
        ("previous_response_id", "resp_1"),
        ("background", True),
        ("conversation", "c"),
        ("prompt", {"id": "p"}),
        ("input", [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]),
        ("input", [{"type": "message", "role": "user"}]),
        ("input", [{"type": "web_search_call"}]),
        ("input", [{"type": "reasoning"}]),
        ("tools", [{"type": "web_search"}]),
        ("text", {"format": {"type": "json_schema", "schema": 5}}),
        ("max_output_tokens", 0),
    ):
        reply = post(server, PATH, {"input": "x", field: value})
        assert reply.status == 400
        assert (reply.error["param"] or "").startswith(field)
    with pytest.raises(openai.NotFoundError, match="is not stored"):
        client.responses.retrieve("resp_1")
