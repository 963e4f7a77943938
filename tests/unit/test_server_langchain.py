"""The server as LangChain's `ChatOpenAI` sees it."""

from __future__ import annotations

from typing import Any, Literal, get_args

import pytest
from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, SecretStr
from server_support import NUM_CONTEXT, EchoCompleter, Running

from edgespec.types import Message

ARGUMENTS = {"town": "Ulm"}
CALL = 'Well.<tool_call>\n{"name": "weather", "arguments": {"town": "Ulm"}}\n</tool_call>'


class Person(BaseModel):
    name: str
    age: int


@tool
def weather(town: str) -> str:
    """Tell the weather of a town."""
    return f"sun in {town}"


@pytest.fixture
def model(server: Running, completer: EchoCompleter) -> ChatOpenAI:
    completer.requests.clear()
    completer.says = None
    return chat(server)


def chat(server: Running, **more: Any) -> ChatOpenAI:  # noqa: ANN401
    key = SecretStr("none")
    return ChatOpenAI(base_url=server.url, api_key=key, model="echo", max_retries=0, **more)


async def test_chats_whole_streamed_and_asynchronous(
    server: Running, model: ChatOpenAI, completer: EchoCompleter
) -> None:
    made = model.bind(seed=4).invoke([("system", "echo"), ("human", "Grüße")])
    assert made.content == "Grüße"
    assert made.usage_metadata is not None
    assert made.usage_metadata["output_tokens"] == len("Grüße".encode()) + 1
    assert completer.requests[0].prompt == (Message("system", "echo"), Message("user", "Grüße"))
    assert completer.requests[0].sampling.seed == 4
    streamed = list(chat(server, stream_usage=True).stream("Grüße"))
    assert "".join(str(piece.content) for piece in streamed) == "Grüße"
    assert any(piece.usage_metadata for piece in streamed)
    assert (await model.ainvoke("Grüße")).content == "Grüße"
    assert [each.content for each in model.batch(["a", "b"])] == ["a", "b"]
    logprobs = model.bind(logprobs=True).invoke("ab").response_metadata["logprobs"]["content"]
    assert [entry["token"] for entry in logprobs] == ["a", "b"]


def test_choices_stops_and_an_answer_that_is_begun(
    server: Running, completer: EchoCompleter
) -> None:
    two = chat(server, n=2, stop_sequences=["two"], max_tokens=20)
    made = two.generate([[HumanMessage("Count."), AIMessage("One, two,")]])
    assert [each.text for each in made.generations[0]] == ["One, ", "One, "]
    request = completer.requests[-1]
    assert (request.continue_final_message, request.max_tokens) == (True, 20)


@pytest.mark.parametrize("through_responses", [False, True])
def test_tools_are_called_and_their_results_told(
    server: Running, completer: EchoCompleter, through_responses: bool
) -> None:
    bound = chat(server, use_responses_api=through_responses).bind_tools([weather])
    completer.says = CALL
    asked = HumanMessage("The weather?")
    made = bound.invoke([asked])
    [call] = made.tool_calls
    assert (call["name"], call["args"]) == ("weather", ARGUMENTS)
    pieces = [piece for piece in bound.stream([asked]) if isinstance(piece, AIMessageChunk)]
    whole = pieces[0]
    for piece in pieces[1:]:
        whole += piece
    assert [each["args"] for each in whole.tool_calls] == [ARGUMENTS]
    completer.says = None
    assert bound.invoke([asked, made, weather.invoke(call)]).text == "sun in Ulm"
    prompt = completer.requests[-1].prompt
    assert isinstance(prompt[-2], Message)
    assert [each.name for each in prompt[-2].tool_calls] == ["weather"]


Method = Literal["json_schema", "json_mode", "function_calling"]


@pytest.mark.parametrize("method", get_args(Method))
def test_structured_output_is_held_to_the_model(
    model: ChatOpenAI, completer: EchoCompleter, method: Method
) -> None:
    person = '{"name": "Ann", "age": 30}'
    call = f'<tool_call>\n{{"name": "Person", "arguments": {person}}}\n</tool_call>'
    completer.says = call if method == "function_calling" else person
    made = model.with_structured_output(Person, method=method).invoke("Ann is 30, in JSON.")
    assert made == Person(name="Ann", age=30)
    constraint = completer.requests[0].sampling.constraint
    assert constraint is not None
    assert ('"age"' in constraint.text) is (method != "json_mode")


def test_a_prompt_that_is_too_long_is_told_as_that(model: ChatOpenAI) -> None:
    for ask in (model.invoke, lambda text: list(model.stream(text))):
        with pytest.raises(ContextOverflowError):
            ask("x" * NUM_CONTEXT)


def test_embeddings(server: Running) -> None:
    key = SecretStr("none")
    embeddings = OpenAIEmbeddings(
        base_url=server.url, api_key=key, model="echo", check_embedding_ctx_length=False
    )
    assert embeddings.embed_documents(["ab", "abcd"]) == [[1.0, 0.5], [2.0, 0.5]]
