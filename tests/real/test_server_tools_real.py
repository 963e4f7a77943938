"""Tools, structured answers and other clients over the default model.

A small model says what it likes, so what is checked is what it must say.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import ollama
import pydantic
import pytest
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI, OpenAI
from server_support import Running, post, running_server

from edgespec.protocols import TextCompleter
from edgespec.server.settings import ServerSettings

pytestmark = pytest.mark.real

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
PARAMETERS = CITY | {
    "properties": {"city": {"type": "string"}, "unit": {"enum": ["C", "F"]}},
    "required": ["city", "unit"],
    "additionalProperties": False,
}
FUNCTIONS: list[dict[str, Any]] = [
    {"name": "get_weather", "description": "The weather of a city", "parameters": PARAMETERS},
    {"name": "get_time", "description": "The time in a city", "parameters": CITY},
]
TOOLS: list[Any] = [{"type": "function", "function": function} for function in FUNCTIONS]
ASKED: list[Any] = [{"role": "user", "content": "What is the weather in Berlin, in Celsius?"}]
CODE = "def mean(values):\n    total = 0\n    for value in values:\n        total += value\n"


@pytest.fixture(scope="module")
def server(real_completer: TextCompleter) -> Iterator[Running]:
    with running_server(real_completer, ServerSettings(port=0)) as it:
        yield it


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.url, api_key="none", max_retries=0, timeout=300) as it:
        yield it


def check_weather(arguments: object) -> None:
    assert isinstance(arguments, dict)
    assert arguments.keys() == {"city", "unit"}
    assert arguments["unit"] in ("C", "F")


def test_a_call_that_is_asked_for_is_made_whole_and_streamed(client: OpenAI) -> None:
    choice: Any = {"type": "function", "function": {"name": "get_weather"}}
    common: Any = {"model": "m", "messages": ASKED, "tools": TOOLS, "tool_choice": choice}
    made = client.chat.completions.create(**common, temperature=0, max_tokens=60)
    assert made.choices[0].finish_reason == "tool_calls"
    [call] = made.choices[0].message.tool_calls or []
    assert call.function.name == "get_weather"
    check_weather(json.loads(call.function.arguments))
    with client.chat.completions.stream(**common, temperature=0, max_tokens=60) as stream:
        [streamed] = stream.get_final_completion().choices[0].message.tool_calls or []
    assert streamed.function.arguments == call.function.arguments
    plain = client.chat.completions.create(
        **common, temperature=0, max_tokens=60, extra_body={"speculate": False}
    )
    [same] = plain.choices[0].message.tool_calls or []
    assert same.function.arguments == call.function.arguments, "drafts change nothing"


def test_calls_and_results_are_in_the_prompt_as_the_model_knows_them(server: Running) -> None:
    turns = [
        *ASKED,
        {
            "role": "assistant",
            "tool_calls": [
                {"id": "a", "function": {"name": "get_weather", "arguments": '{"city": "Berlin"}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "a", "content": "17 degrees"},
    ]
    prompt = post(server, "/apply-template", {"messages": turns, "tools": TOOLS}).json["prompt"]
    assert '"name": "get_time"' in prompt
    call = '{"name": "get_weather", "arguments": {"city": "Berlin"}}'
    assert f"<tool_call>\n{call}\n</tool_call>" in prompt
    assert "<tool_response>\n17 degrees\n</tool_response>" in prompt


class Person(pydantic.BaseModel):
    name: str
    age: int


async def test_parse_gives_an_object(server: Running) -> None:
    async with AsyncOpenAI(base_url=server.url, api_key="none", timeout=300) as client:
        chat = await client.chat.completions.parse(
            model="m",
            messages=[{"role": "user", "content": "Ann is 30."}],
            response_format=Person,
            max_tokens=60,
        )
        assert chat.choices[0].message.parsed is not None
        response = await client.responses.parse(
            model="m", input="Ann is 30.", text_format=Person, max_output_tokens=60
        )
        assert response.output_parsed is not None


def test_schemas_that_are_none_are_bad_requests(server: Running) -> None:
    for schema in ({"type": 123}, {"type": "hiccup"}):
        wanted = {"type": "json_object", "schema": schema}
        reply = post(server, "/v1/chat/completions", {"messages": ASKED, "response_format": wanted})
        assert reply.status == 400, reply.body


def test_an_answer_that_is_begun_goes_on(client: OpenAI) -> None:
    begun: list[Any] = [
        {"role": "user", "content": "Count to five in words."},
        {"role": "assistant", "content": "One, two,"},
    ]
    made = client.chat.completions.create(model="m", messages=begun, temperature=0, max_tokens=12)
    assert (made.choices[0].message.content or "").startswith(" three")


def test_a_prediction_changes_no_byte(client: OpenAI) -> None:
    asked: list[Any] = [{"role": "user", "content": f"Rename values to xs. Code only.\n{CODE}"}]
    common: Any = {"model": "m", "messages": asked, "temperature": 0, "max_tokens": 60}
    without = client.chat.completions.create(**common)
    predicted = client.chat.completions.create(
        **common, prediction={"type": "content", "content": CODE}
    )
    assert predicted.choices[0].message.content == without.choices[0].message.content
    assert predicted.usage is not None and predicted.usage.completion_tokens_details is not None
    assert predicted.usage.completion_tokens_details.accepted_prediction_tokens


def test_choices_differ_and_are_reproducible(client: OpenAI) -> None:
    def words() -> list[str | None]:
        made = client.chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": "Say any word."}],
            n=3,
            seed=4,
            temperature=1.5,
            max_tokens=6,
        )
        return [choice.message.content for choice in made.choices]

    first = words()
    assert len(set(first)) > 1
    assert words() == first


def test_a_gap_is_filled(client: OpenAI) -> None:
    made = client.completions.create(
        model="m", prompt="def add(a, b):\n    return ", suffix="\n", temperature=0, max_tokens=6
    )
    assert made.choices[0].text.startswith("a + b")


def test_the_ends_have_no_log_probability(client: OpenAI) -> None:
    made = client.chat.completions.create(
        model="m",
        messages=[{"role": "user", "content": "Say OK."}],
        logprobs=True,
        temperature=0,
        max_tokens=10,
    )
    logprobs = made.choices[0].logprobs
    assert logprobs is not None
    said = b"".join(bytes(entry.bytes or []) for entry in logprobs.content or [])
    assert said.decode() == made.choices[0].message.content


def test_anthropics_client_calls_tools(server: Running) -> None:
    base_url = server.url.removesuffix("/v1")
    tools: list[Any] = [{"name": "get_weather", "input_schema": PARAMETERS}]
    with anthropic.Anthropic(base_url=base_url, api_key="none", max_retries=0) as client:
        counted = client.messages.count_tokens(model="m", messages=ASKED, tools=tools)
        with client.messages.stream(
            model="m",
            max_tokens=60,
            messages=ASKED,
            tools=tools,
            tool_choice={"type": "any", "disable_parallel_tool_use": True},
        ) as stream:
            made = stream.get_final_message()
    assert made.stop_reason == "tool_use"
    [call] = made.content
    assert call.type == "tool_use"
    check_weather(call.input)
    cached = made.usage.cache_read_input_tokens or 0
    assert made.usage.input_tokens + cached == counted.input_tokens


def test_ollamas_client_chats(server: Running) -> None:
    with ollama.Client(server.url.removesuffix("/v1")) as client:
        name = client.list().models[0].model or ""
        assert set(client.show(name).capabilities or []) >= {"completion", "tools", "insert"}
        options: Any = {"num_predict": 8, "temperature": 0}
        pieces = list(client.chat(name, ASKED, stream=True, options=options))
        whole = client.chat(name, ASKED, options=options)
    assert "".join(piece.message.content or "" for piece in pieces) == whole.message.content


def test_langchain_chats_calls_and_gets_objects(server: Running) -> None:
    model = ChatOpenAI(
        base_url=server.url,
        api_key=pydantic.SecretStr("none"),
        model="m",
        temperature=0,
        max_completion_tokens=60,
    )
    paris = "What is the capital of France? Answer with one word."
    whole = model.invoke(paris).text
    assert "Paris" in whole
    assert "".join(piece.text for piece in model.stream(paris)) == whole
    [call] = model.bind_tools(TOOLS, tool_choice="get_weather").invoke(ASKED).tool_calls
    check_weather(call["args"])
    assert isinstance(model.with_structured_output(Person).invoke("Ann is 30."), Person)


def test_llm_answers_in_a_shell(server: Running, tmp_path: Path) -> None:
    models = [{"model_id": "edgespec", "model_name": "m", "api_base": server.url}]
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps(models))
    asked = ["-o", "temperature", "0", "-o", "max_tokens", "8", "The capital of France?"]
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "llm", "-m", "edgespec", *asked],
        env={**os.environ, "LLM_USER_PATH": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "Paris" in ended.stdout, ended.stderr
