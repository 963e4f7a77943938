"""The real server as the `openai` package sees it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import openai
import pytest
from openai import OpenAI
from server_support import DETAILS, NUM_CONTEXT, EchoCompleter, Running, post, running_server

from edgespec.errors import NativeLibraryError
from edgespec.server.service import DEFAULT_MAX_TOKENS
from edgespec.server.settings import ServerSettings
from edgespec.types import CompletionRequest, Constraint, Message, SamplingParams, ToolCall


@dataclass
class Setup:
    completer: EchoCompleter
    server: Running
    client: OpenAI


@pytest.fixture(scope="module")
def module_setup() -> Iterator[Setup]:
    completer = EchoCompleter()
    settings = ServerSettings(port=0, default_sampling=SamplingParams(temperature=0.6))
    with (
        running_server(completer, settings) as server,
        OpenAI(base_url=server.url, api_key="none", max_retries=0, timeout=10) as client,
    ):
        yield Setup(completer, server, client)


@pytest.fixture
def setup(module_setup: Setup) -> Setup:
    module_setup.completer.requests.clear()
    module_setup.completer.fail_after = None
    module_setup.completer.says = None
    module_setup.completer.drafters = ("context",)
    return module_setup


def say(text: str) -> list[Any]:
    return [{"role": "system", "content": "echo"}, {"role": "user", "content": text}]


def test_chat(setup: Setup) -> None:
    answer = setup.client.chat.completions.create(
        model="gpt-4o", messages=say("Grüße 🙂"), temperature=0, seed=5, max_tokens=50
    )
    assert answer.object == "chat.completion"
    assert answer.id.startswith("chatcmpl-")
    assert answer.model == "echo/tiny"
    (choice,) = answer.choices
    assert choice.message.role == "assistant"
    assert choice.message.content == "Grüße 🙂"
    assert choice.finish_reason == "stop"
    assert choice.logprobs is None
    assert answer.usage is not None
    num_bytes = len("Grüße 🙂".encode())
    assert answer.usage.completion_tokens == num_bytes + 1
    assert answer.usage.prompt_tokens == num_bytes + 4 + 4
    assert answer.usage.total_tokens == 2 * num_bytes + 9
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 3
    assert answer.model_extra is not None
    assert answer.model_extra["speculation"]["acceptance_rate"] == 0.75
    assert answer.model_extra["timings"]["predicted_ms"] >= 0
    (request,) = setup.completer.requests
    assert request.prompt == (Message("system", "echo"), Message("user", "Grüße 🙂"))
    assert (request.sampling.temperature, request.sampling.seed) == (0, 5)


def test_streamed_chat_is_the_same_text(setup: Setup) -> None:
    chunks = list(
        setup.client.chat.completions.create(model="any", messages=say("a 🙂 b"), stream=True)
    )
    assert [chunk.object for chunk in chunks] == ["chat.completion.chunk"] * len(chunks)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(chunk.choices[0].delta.role is None for chunk in chunks[1:])
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "a 🙂 b"
    reasons = [chunk.choices[0].finish_reason for chunk in chunks]
    assert reasons == [None] * (len(chunks) - 1) + ["stop"]
    assert all(chunk.usage is None for chunk in chunks)
    assert chunks[-1].model_extra is not None
    assert chunks[-1].model_extra["speculation"]["target_passes"] > 0
    assert setup.completer.requests[0].sampling.temperature == 0.6


def test_streamed_usage_comes_last(setup: Setup) -> None:
    chunks = list(
        setup.client.chat.completions.create(
            model="any",
            messages=say("hi"),
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3
    assert all(chunk.usage is None for chunk in chunks[:-1])


@pytest.mark.parametrize("stream", [False, True])
def test_text(setup: Setup, stream: bool) -> None:
    made = setup.client.completions.create(
        model="any", prompt="once upon a time", stream=stream, stop=["time", "x"], max_tokens=99
    )
    parts = list(made) if isinstance(made, openai.Stream) else [made]
    assert "".join(part.choices[0].text for part in parts) == "once upon a "
    assert parts[-1].choices[0].finish_reason == "stop"
    assert {part.object for part in parts} == {"text_completion"}
    assert setup.completer.requests[0].prompt == "once upon a time"
    assert (len(parts) > 1) is stream


@pytest.mark.parametrize("stream", [False, True])
def test_the_token_limit_is_a_finish_reason(setup: Setup, stream: bool) -> None:
    made = setup.client.chat.completions.create(
        model="any", messages=say("too long"), max_completion_tokens=3, stream=stream
    )
    if isinstance(made, openai.Stream):
        parts = list(made)
        assert parts[-1].choices[0].finish_reason == "length"
        assert "".join(part.choices[0].delta.content or "" for part in parts) == "too"
    else:
        assert made.choices[0].finish_reason == "length"
        assert made.choices[0].message.content == "too"


def test_chat_logprobs(setup: Setup) -> None:
    answer = setup.client.chat.completions.create(
        model="any", messages=say("aé"), logprobs=True, top_logprobs=2
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert [entry.token for entry in logprobs.content] == ["a", "bytes:\\xc3", "bytes:\\xa9"]
    assert bytes(b for entry in logprobs.content for b in entry.bytes or []) == "aé".encode()
    first = logprobs.content[0]
    assert first.logprob == -0.25
    assert [(top.token, top.logprob) for top in first.top_logprobs] == [("a", -0.25), ("b", -1.25)]


def test_streamed_chat_logprobs_are_the_same(setup: Setup) -> None:
    stream = setup.client.chat.completions.create(
        model="any", messages=say("aé"), logprobs=True, stream=True
    )
    seen: list[int] = []
    for chunk in stream:
        logprobs = chunk.choices[0].logprobs
        for entry in logprobs.content or [] if logprobs else []:
            assert entry.top_logprobs == []
            seen += entry.bytes or []
    assert bytes(seen) == "aé".encode()


def test_text_logprobs(setup: Setup) -> None:
    answer = setup.client.completions.create(model="any", prompt="ab", logprobs=1)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens == ["a", "b"]
    assert logprobs.token_logprobs == [-0.25, -0.25]
    assert logprobs.top_logprobs == [{"a": -0.25}, {"b": -0.25}]
    assert logprobs.text_offset == [0, 1]


def test_our_own_fields_go_through_extra_body(setup: Setup) -> None:
    extra = {"top_k": 7, "min_p": 0.1, "grammar": 'root ::= "x"', "speculate": False}
    setup.client.chat.completions.create(model="any", messages=say("x"), extra_body=extra)
    (request,) = setup.completer.requests
    assert (request.sampling.top_k, request.sampling.min_p) == (7, 0.1)
    assert request.sampling.constraint == Constraint("gbnf", 'root ::= "x"')
    assert request.speculate is False


def test_a_json_schema_reaches_the_sampler(setup: Setup) -> None:
    schema: dict[str, object] = {"type": "object", "properties": {"x": {"type": "integer"}}}
    setup.client.chat.completions.create(
        model="any",
        messages=say("{}"),
        response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": schema}},
    )
    (request,) = setup.completer.requests
    assert request.sampling.constraint == Constraint("json_schema", json.dumps(schema))


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_wrong_with_a_question_is_a_bad_request(setup: Setup, stream: bool) -> None:
    def ask(text: str = "x", **fields: object) -> openai.BadRequestError:
        with pytest.raises(openai.BadRequestError) as caught:
            setup.client.chat.completions.create(
                model="any", messages=say(text), stream=stream, extra_body=fields
            )
        return caught.value

    too_long = ask("x" * NUM_CONTEXT)
    assert too_long.code == "context_length_exceeded"
    assert too_long.type == "invalid_request_error"
    assert ask(grammar="leaf ::= x").code == "invalid_grammar"
    assert "logit_bias" in ask(logit_bias={"257": 5}).message
    assert ask(temperature=-1).param == "temperature"
    assert ask(n=17).param == "n"
    assert ask(messages=[]).param == "messages"


def test_a_failure_before_the_first_token_has_a_status(setup: Setup) -> None:
    class Broken(EchoCompleter):
        def _check(self, request: CompletionRequest) -> int:
            raise NativeLibraryError("llama_decode failed", "see `edgespec doctor`")

    with (
        running_server(Broken()) as server,
        OpenAI(base_url=server.url, api_key="none", max_retries=0) as client,
    ):
        for stream in (False, True):
            with pytest.raises(openai.InternalServerError, match="edgespec doctor") as caught:
                client.completions.create(model="any", prompt="x", stream=stream)
            assert caught.value.status_code == 500
            assert caught.value.type == "server_error"


def test_a_failure_in_the_middle_of_a_stream_is_an_error_event(setup: Setup) -> None:
    setup.completer.fail_after = NativeLibraryError("llama_decode failed")
    stream = setup.client.chat.completions.create(model="any", messages=say("abc"), stream=True)
    texts: list[str | None] = []
    with pytest.raises(openai.APIError, match="llama_decode failed") as caught:
        texts.extend(chunk.choices[0].delta.content for chunk in stream)
    assert texts == ["", "a"]
    assert caught.value.type == "server_error"
    setup.completer.fail_after = None
    answer = setup.client.completions.create(model="any", prompt="still there")
    assert answer.choices[0].text == "still there"


def test_a_bug_in_the_completer_fails_one_answer_only(
    setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    setup.completer.fail_after = ZeroDivisionError("one\ntwo")
    with pytest.raises(openai.InternalServerError) as caught:
        setup.client.completions.create(model="any", prompt="x")
    assert caught.value.code == "internal_error"
    (record,) = (r for r in caplog.records if r.name == "edgespec.server")
    assert "\n" not in record.getMessage()
    assert record.exc_info is None
    setup.completer.fail_after = None
    assert setup.client.completions.create(model="any", prompt="y").choices[0].text == "y"


def test_models(setup: Setup) -> None:
    (model,) = setup.client.models.list()
    assert model.id == "echo/tiny"
    assert model.object == "model"
    assert model.owned_by == "edgespec"
    assert model.created > 0
    assert setup.client.models.retrieve("echo/tiny") == model
    with pytest.raises(openai.NotFoundError) as caught:
        setup.client.models.retrieve("gpt-4o")
    assert caught.value.code == "model_not_found"


def test_what_drafts_is_told_as_it_is_now(setup: Setup) -> None:
    setup.completer.drafters = ("context", "tiny")  # one came since it was loaded
    (model,) = setup.client.models.list()
    meta: Any = model.to_dict()["meta"]
    assert meta["drafter"] == "context+tiny"


def test_twenty_clients_at_once_are_answered_one_at_a_time() -> None:
    completer = EchoCompleter(token_s=0.001)
    texts = [f"client {number}" for number in range(20)]
    answers: dict[str, str] = {}
    with (
        running_server(completer, ServerSettings(port=0, max_queue=20)) as server,
        OpenAI(base_url=server.url, api_key="none", max_retries=0, timeout=30) as client,
    ):

        def ask(text: str) -> None:
            if text.endswith(("1", "3", "5")):
                stream = client.completions.create(model="any", prompt=text, stream=True)
                answers[text] = "".join(part.choices[0].text for part in stream)
            else:
                answers[text] = client.completions.create(model="any", prompt=text).choices[0].text

        threads = [threading.Thread(target=ask, args=(text,)) for text in texts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert answers == {text: text for text in texts}
    assert len(completer.threads) == 1
    assert completer.most_open == 1


async def test_the_asynchronous_client_leaves_a_stream_half_read() -> None:
    completer = EchoCompleter(token_s=0.01)
    with running_server(completer) as server:
        async with openai.AsyncOpenAI(base_url=server.url, api_key="none") as client:
            stream = await client.completions.create(model="any", prompt="x" * 900, stream=True)
            async for _ in stream:
                break
            await stream.close()
            answer = await client.completions.create(model="any", prompt="next")
    assert answer.choices[0].text == "next"
    assert completer.stopped == {1}
    assert completer.most_open == 1


TOOL: list[Any] = [
    {
        "type": "function",
        "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
    }
]
CALL = 'Let me see.\n<tool_call>\n{"name": "weather", "arguments": {"town": "Ulm"}}\n</tool_call>'


def test_several_choices_are_told_apart(setup: Setup) -> None:
    answer = setup.client.chat.completions.create(model="any", messages=say("ab"), n=3, seed=5)
    assert [(each.index, each.message.content) for each in answer.choices] == [
        (0, "ab"),
        (1, "ab"),
        (2, "ab"),
    ]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 9
    assert sorted(each.sampling.seed for each in setup.completer.requests) == [5, 6, 7]
    texts = ["", "", ""]
    for chunk in setup.client.chat.completions.create(
        model="any", messages=say("ab"), n=3, stream=True
    ):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == ["ab", "ab", "ab"]


def test_more_answers_than_the_queue_has_places_follow_one_another() -> None:
    with (
        running_server(EchoCompleter(), ServerSettings(port=0, max_queue=1)) as server,
        OpenAI(base_url=server.url, api_key="none", max_retries=0) as client,
    ):
        answer = client.completions.create(model="any", prompt=["a", "b", "c"], n=4)
    assert [choice.text for choice in answer.choices] == [*"aaaabbbbcccc"]


@pytest.mark.parametrize("stream", [False, True])
def test_prompts_of_tokens_and_their_echo(setup: Setup, stream: bool) -> None:
    made = setup.client.completions.create(
        model="any", prompt=[[104, 105], [106]], echo=True, stream=stream
    )
    parts = list(made) if isinstance(made, openai.Stream) else [made]
    texts = ["", ""]
    for choice in (choice for part in parts for choice in part.choices):
        texts[choice.index] += choice.text
    assert texts == ["hihi", "jj"]


def test_the_limits_of_an_answer(setup: Setup) -> None:
    setup.client.completions.create(model="any", prompt="x")
    setup.client.completions.create(model="any", prompt="x", max_tokens=-1)
    assert [each.max_tokens for each in setup.completer.requests] == [DEFAULT_MAX_TOKENS, None]


def test_a_prediction_is_searched_and_told_in_the_usage(setup: Setup) -> None:
    answer = setup.client.chat.completions.create(
        model="any", messages=say("abcd"), prediction={"type": "content", "content": "abXd"}
    )
    assert setup.completer.requests[0].prediction == "abXd"
    assert answer.usage is not None
    details = answer.usage.completion_tokens_details
    assert details is not None
    assert (details.accepted_prediction_tokens, details.rejected_prediction_tokens) == (3, 1)


def test_the_progress_of_reading_is_told_to_those_who_ask(setup: Setup) -> None:
    content = {"messages": say("x" * 3600), "stream": True}
    plain = post(setup.server, "/v1/chat/completions", content).events
    assert not [event for event in plain if "prompt_progress" in event]
    wanted = content | {"return_progress": True, "timings_per_token": True}
    events = post(setup.server, "/v1/chat/completions", wanted).events
    [progress] = [event["prompt_progress"] for event in events if "prompt_progress" in event]
    assert progress.keys() == {"total", "cache", "processed", "time_ms"}


def test_tools_are_called(setup: Setup) -> None:
    setup.completer.says = CALL
    answer = setup.client.chat.completions.create(model="any", messages=say("?"), tools=TOOL)
    (choice,) = answer.choices
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", "Let me see.")
    assert choice.message.tool_calls is not None
    (call,) = choice.message.tool_calls
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"town": "Ulm"})
    given = json.loads(setup.completer.requests[0].template.tools)
    assert given[0]["function"]["name"] == "weather"
    then: list[Any] = [
        *say("?"),
        choice.message.to_dict(),
        {"role": "tool", "tool_call_id": call.id, "content": "sun"},
    ]
    setup.client.chat.completions.create(model="any", messages=then, tools=TOOL)
    prompt = setup.completer.requests[-1].prompt
    asked, told = prompt[-2], prompt[-1]
    assert asked == Message(
        "assistant", "Let me see.", (ToolCall("weather", call.function.arguments, call.id),)
    )
    assert told == Message("tool", "sun", tool_call_id=call.id)


def test_streamed_calls_are_the_same(setup: Setup) -> None:
    setup.completer.says = CALL
    with setup.client.chat.completions.stream(model="any", messages=say("?"), tools=TOOL) as stream:
        deltas = [event for event in stream if event.type == "tool_calls.function.arguments.delta"]
        message = stream.get_final_completion().choices[0].message
    assert len(deltas) > 5
    assert message.content == "Let me see."
    assert message.tool_calls is not None
    assert message.tool_calls[0].function.arguments == '{"town": "Ulm"}'


def test_what_looks_like_a_call_is_text_without_tools(setup: Setup) -> None:
    setup.completer.says = CALL
    for choice in ("none", None):
        answer = setup.client.chat.completions.create(
            model="any",
            messages=say("?"),
            extra_body={"tools": TOOL if choice else [], "tool_choice": choice},
        )
        assert answer.choices[0].message.content == CALL
        assert setup.completer.requests[-1].template.tools == ""


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "weather"}}]
)
def test_a_call_is_forced(setup: Setup, choice: object) -> None:
    post(
        setup.server,
        "/v1/chat/completions",
        {"messages": say("?"), "tools": TOOL, "tool_choice": choice},
    )
    constraint = setup.completer.requests[0].sampling.constraint
    assert constraint is not None
    assert constraint.kind == "lark"
    with pytest.raises(openai.BadRequestError, match="no tool 'f'"):
        setup.client.chat.completions.create(
            model="any",
            messages=say("?"),
            tools=TOOL,
            tool_choice={"type": "function", "function": {"name": "f"}},
        )


def test_embeddings(setup: Setup) -> None:
    made = setup.client.embeddings.create(model="any", input=["abc", "d"])
    assert [each.embedding for each in made.data] == [[1.5, 0.5], [0.5, 0.5]]
    assert made.usage.prompt_tokens == 4
    plain = setup.client.embeddings.create(model="any", input=[1, 2], encoding_format="float")
    assert plain.data[0].embedding == [1.0, 0.5]
    for nothing in ("", [], "x" * 21, [999]):
        with pytest.raises(openai.BadRequestError):
            setup.client.embeddings.create(model="any", input=nothing)
    silent = EchoCompleter(details=replace(DETAILS, num_embedded=0))
    with (
        running_server(silent) as server,
        OpenAI(base_url=server.url, api_key="none", max_retries=0) as client,
        pytest.raises(openai.InternalServerError, match="gives no embeddings") as caught,
    ):
        client.embeddings.create(model="any", input="x")
    assert caught.value.status_code == 501
