"""The server as LiteLLM sees it."""

from __future__ import annotations

import json
from typing import Any

import litellm
import pytest
from pydantic import BaseModel
from server_support import (
    NUM_CONTEXT,
    EchoCompleter,
    Running,
    running_server,
    start_chat,
    wait_until,
)

from edgespec.server.settings import ServerSettings

pytestmark = pytest.mark.filterwarnings("ignore")
"""It warns of itself."""

WEATHER = {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": WEATHER}}]
CALL = 'Well.<tool_call>\n{"name": "weather", "arguments": {"town": "Ulm"}}\n</tool_call>'


class Person(BaseModel):
    name: str
    age: int


def at(server: Running) -> dict[str, Any]:
    return {
        "model": "openai/echo",
        "api_base": server.url,
        "api_key": "none",
        "max_retries": 0,
        "timeout": 120,
    }


def ask(server: Running, text: str, **more: Any) -> Any:  # noqa: ANN401
    return litellm.completion(messages=[{"role": "user", "content": text}], **at(server), **more)


def text_of(stream: Any) -> str:  # noqa: ANN401
    return "".join(piece.choices[0].delta.content or "" for piece in stream if piece.choices)


def test_completions_whole_and_streamed(server: Running, completer: EchoCompleter) -> None:
    made = ask(server, "Grüße", temperature=0.5, seed=4, max_tokens=20)
    assert made.choices[0].message.content == "Grüße"
    assert made.usage.completion_tokens == len("Grüße".encode()) + 1
    assert text_of(ask(server, "Grüße", stream=True)) == "Grüße"
    assert completer.requests[0].sampling.seed == 4
    texts = litellm.text_completion(prompt="once upon", n=2, stop=[" "], **at(server)).choices
    assert [each.text for each in texts] == ["once", "once"]
    [entry, _] = ask(server, "ab", logprobs=True).choices[0].logprobs.content
    assert entry.token == "a"
    begun = {"role": "assistant", "content": "One,"}
    litellm.completion(messages=[{"role": "user", "content": "Count."}, begun], **at(server))
    assert completer.requests[-1].continue_final_message
    assert litellm.embedding(input=["ab"], **at(server)).data[0]["embedding"] == [1.0, 0.5]
    assert litellm.responses(input="hello", **at(server)).output[0].content[0].text == "hello"


def test_tools_and_formats(server: Running, completer: EchoCompleter) -> None:
    completer.says = CALL
    whole = ask(server, "?", tools=TOOLS)
    streamed = litellm.stream_chunk_builder(list(ask(server, "?", tools=TOOLS, stream=True)))
    for made in (whole, streamed):
        [call] = made.choices[0].message.tool_calls
        assert json.loads(call.function.arguments) == {"town": "Ulm"}
        assert made.choices[0].finish_reason == "tool_calls"
    completer.says = '{"name": "Ann", "age": 30}'
    ask(server, "Ann is 30.", response_format=Person)
    constraint = completer.requests[-1].sampling.constraint
    assert constraint is not None
    assert '"age"' in constraint.text


def test_errors_are_told_apart(server: Running) -> None:
    with pytest.raises(litellm.ContextWindowExceededError):
        ask(server, "x" * NUM_CONTEXT)
    with pytest.raises(litellm.BadRequestError):
        ask(server, "x", logit_bias={"999999": 1})
    with (
        running_server(EchoCompleter(), ServerSettings(port=0, api_keys=("secret",))) as locked,
        pytest.raises(litellm.AuthenticationError),
    ):
        ask(locked, "x")
    slow = EchoCompleter(prefill_s=60.0)
    with (
        running_server(slow, ServerSettings(port=0, max_queue=1)) as busy,
        start_chat(busy, "one", stream=True),
        start_chat(busy, "two", stream=True),
    ):
        wait_until(lambda: busy.answers.num_waiting == 1)
        with pytest.raises(litellm.RateLimitError):
            ask(busy, "three")


def test_the_default_model_answers(real_server: Running) -> None:
    asked = "What is the capital of France? Answer with one word."
    made = ask(real_server, asked, temperature=0, max_tokens=8).choices[0].message.content
    assert "Paris" in made
    assert text_of(ask(real_server, asked, temperature=0, max_tokens=8, stream=True)) == made
