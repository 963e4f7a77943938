"""Ollama's API as the `ollama` package sees it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ollama
import pytest
from ollama import Client
from server_support import EchoCompleter, Running, post, send

from edgespec.types import Constraint, Message, ToolCall

TOOL: Any = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
}
CALL = 'Well.<tool_call>\n{"name": "weather", "arguments": {"town": "Ulm"}}\n</tool_call>'


@pytest.fixture
def client(server: Running, completer: EchoCompleter) -> Iterator[Client]:
    completer.requests.clear()
    completer.says = None
    with Client(server.url.removesuffix("/v1")) as it:
        yield it


def say(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def test_a_chat_whole_and_in_pieces(client: Client, completer: EchoCompleter) -> None:
    options: Any = {"temperature": 0.5, "num_predict": 20, "seed": 4, "stop": ["!"], "num_ctx": 8}
    made = client.chat("echo/tiny", say("Grüße!"), options=options)
    assert made.message.content == "Grüße"
    assert (made.done, made.done_reason) == (True, "stop")
    assert made.eval_count is not None
    assert made.eval_count > 5
    pieces = list(client.chat("echo/tiny:latest", say("Grüße"), stream=True))
    assert "".join(piece.message.content or "" for piece in pieces) == "Grüße"
    assert [piece.done for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    request, _ = completer.requests
    assert (request.max_tokens, request.stop, request.sampling.seed) == (20, ("!",), 4)
    assert request.sampling.temperature == 0.5


@pytest.mark.parametrize("stream", [False, True])
def test_tools_are_called(client: Client, completer: EchoCompleter, stream: bool) -> None:
    completer.says = CALL
    pieces: list[Any] = (
        list(client.chat("any", say("?"), tools=[TOOL], stream=True))
        if stream
        else [client.chat("any", say("?"), tools=[TOOL])]
    )
    assert "".join(piece.message.content or "" for piece in pieces) == "Well."
    [call] = [call for piece in pieces for call in piece.message.tool_calls or ()]
    assert (call.function.name, call.function.arguments) == ("weather", {"town": "Ulm"})
    then = [
        *say("?"),
        {"role": "assistant", "content": "Well.", "tool_calls": [call.model_dump()]},
        {"role": "tool", "tool_name": "weather", "content": "sun"},
    ]
    client.chat("any", then, tools=[TOOL])
    prompt = completer.requests[-1].prompt
    asked, told = prompt[-2], prompt[-1]
    assert isinstance(asked, Message)
    assert [(each.name, each.arguments) for each in asked.tool_calls] == [
        ("weather", '{"town": "Ulm"}')
    ]
    assert isinstance(asked.tool_calls[0], ToolCall)
    assert told == Message("tool", "sun", name="weather")


def test_formats(client: Client, completer: EchoCompleter) -> None:
    client.chat("any", say("{}"), format="json")
    client.chat("any", say("1"), format={"type": "integer"})
    assert [each.sampling.constraint for each in completer.requests] == [
        Constraint("json_schema", '{"type": "object"}'),
        Constraint("json_schema", '{"type": "integer"}'),
    ]


def test_generate_takes_a_question_a_gap_or_plain_text(
    client: Client, completer: EchoCompleter
) -> None:
    made = client.generate("any", "hi", system="Echo.")
    assert (made.response, made.done_reason) == ("hi", "stop")
    assert client.generate("any", "hi", raw=True).response == "hi"
    client.generate("any", "a", suffix="b")
    pieces = list(client.generate("any", "hi", stream=True))
    assert "".join(piece.response or "" for piece in pieces) == "hi"
    asked, plain, gap, _ = completer.requests
    assert asked.prompt == (Message("system", "Echo."), Message("user", "hi"))
    assert plain.prompt == "hi"
    assert gap.prompt_tokens == (1, 97, 2, 98, 3)


def test_a_question_without_words_only_loads_the_model(
    client: Client, completer: EchoCompleter
) -> None:
    assert client.generate("any").done_reason == "load"
    assert client.chat("any").done_reason == "load"
    assert completer.requests == []


def test_what_there_is(client: Client, server: Running) -> None:
    [model] = client.list().models
    assert (model.model, model.size) == ("echo/tiny", 1234)
    [running] = client.ps().models
    assert running.model == "echo/tiny"
    shown = client.show("echo/tiny")
    assert shown.capabilities == ["completion", "tools", "insert"]
    assert shown.modelinfo is not None
    assert shown.modelinfo["general.architecture"] == "echo"
    assert "version" in send(server, "GET", "/api/version").json


def test_embeddings(client: Client) -> None:
    made = client.embed("any", ["abc", "x" * 50])
    assert made.embeddings == [[1.5, 0.5], [10.0, 0.5]], "the second one is cut"
    assert client.embeddings("any", "ab").embedding == [1.0, 0.5]
    with pytest.raises(ollama.ResponseError, match="send it in parts"):
        client.embed("any", "x" * 50, truncate=False)


def test_log_probabilities(client: Client) -> None:
    made = client.chat("any", say("ab"), logprobs=True, top_logprobs=1)
    assert made.logprobs is not None
    assert [entry.token for entry in made.logprobs] == ["a", "b"]


def test_errors_are_strings(client: Client, server: Running) -> None:
    with pytest.raises(ollama.ResponseError, match="shorten it") as caught:
        client.chat("any", say("x" * 5000))
    assert caught.value.status_code == 400
    with pytest.raises(ollama.ResponseError, match="does not support thinking"):
        client.chat("any", say("x"), think=True)
    for content in (
        {"model": "any", "messages": say("x"), "options": {"mirostat": 2}},
        {"model": "any", "messages": [{"role": "user", "content": "x", "images": ["abc"]}]},
        {"messages": say("x")},
        {"model": "any", "messages": say("x"), "format": "yaml"},
    ):
        reply = post(server, "/api/chat", content)
        assert reply.status == 400
        assert isinstance(reply.json["error"], str)
