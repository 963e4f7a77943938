"""Request bodies: what each field becomes, and what is refused in which words."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import openai
import pytest
from server_support import DETAILS, END_OF_TURN, EchoCompleter, served_by

from edgespec.server.errors import ApiError
from edgespec.server.fields import HARMLESS, MEANINGFUL, parse_body
from edgespec.server.openai.chat import ChatBody
from edgespec.server.openai.completions import TextBody
from edgespec.server.openai.fields import AnswerBody
from edgespec.types import CompletionRequest, Constraint, Message, SamplingParams, ToolCall

SERVED = served_by(EchoCompleter())
DEFAULT = SamplingParams(temperature=0.7, top_k=40, min_p=0.05, seed=99)


def chat(**fields: object) -> CompletionRequest:
    content = {"messages": [{"role": "user", "content": "hi"}]} | fields
    return asked(json.dumps(content).encode())


def asked(raw: bytes, default: SamplingParams = DEFAULT) -> CompletionRequest:
    body = parse_body(ChatBody, raw)
    return body.asked(SERVED, default, body.toolbox(SERVED))


def texts(**fields: object) -> list[CompletionRequest]:
    return parse_body(TextBody, json.dumps({"prompt": "hi"} | fields).encode()).asked(
        SERVED, DEFAULT
    )


def text(**fields: object) -> CompletionRequest:
    [request] = texts(**fields)
    return request


def refusal(**fields: object) -> ApiError:
    with pytest.raises(ApiError) as caught:
        chat(**fields)
    assert caught.value.status == 400
    return caught.value


def test_left_out_fields_are_the_defaults_but_for_a_random_seed() -> None:
    first, second = chat(), chat()
    assert first.prompt == (Message("user", "hi"),)
    assert first.max_tokens is None
    assert first.stop == ()
    assert first.num_top_logprobs is None
    assert first.speculate
    assert first.overflow == "error"
    assert first.sampling == SamplingParams(
        temperature=0.7, top_k=40, min_p=0.05, seed=first.sampling.seed
    )
    assert len({first.sampling.seed, second.sampling.seed, chat().sampling.seed, 99}) > 2


@pytest.mark.parametrize("kind", [chat, text])
def test_null_means_left_out(kind: Callable[..., CompletionRequest]) -> None:
    names = AnswerBody.model_fields.keys() - {"seed"}
    assert kind(seed=1, **dict.fromkeys(names)) == kind(seed=1)


@pytest.mark.parametrize("kind", [chat, text])
def test_every_sampling_field_arrives(kind: Callable[..., CompletionRequest]) -> None:
    given: dict[str, Any] = {
        "temperature": 1,
        "top_k": 3,
        "top_p": 0.9,
        "min_p": 0.1,
        "typical_p": 0.8,
        "repeat_penalty": 1.1,
        "frequency_penalty": -2,
        "presence_penalty": 2,
        "penalty_last_n": 0,
        "dry_multiplier": 0.8,
        "dry_base": 2,
        "dry_allowed_length": 3,
        "dry_penalty_last_n": 100,
        "seed": 7,
    }
    sampling = kind(**given, logit_bias={"5": -100, "17": 1.5}).sampling
    assert sampling == SamplingParams(**given, logit_bias=((5, -100.0), (17, 1.5)))


def test_other_names_and_values_of_local_servers() -> None:
    assert chat(repeat_last_n=5).sampling.penalty_last_n == 5
    assert chat(top_k=-1).sampling.top_k == 0
    assert chat(max_tokens=-1).max_tokens == -1
    assert chat(n_predict=7).max_tokens == 7
    assert chat(repetition_penalty=1.5).sampling.repeat_penalty == 1.5
    assert not chat(cache_prompt=False).reuse_prefix
    assert not chat(speculate=False).speculate


@pytest.mark.parametrize(
    ("given", "used"),
    [(0, 0), (2**32 - 2, 2**32 - 2), (2**32 - 1, 0), (2**32 + 5, 6), (-2, 2**32 - 3)],
)
def test_seeds_are_folded_into_what_the_sampler_can_tell_apart(given: int, used: int) -> None:
    assert chat(seed=given).sampling.seed == used


def test_minus_one_is_a_random_seed() -> None:
    assert len({chat(seed=-1).sampling.seed for _ in range(4)}) > 1


def test_token_limits() -> None:
    assert chat(max_tokens=5).max_tokens == 5
    assert chat(max_tokens=5, max_completion_tokens=6).max_tokens == 6
    assert text(max_tokens=5, max_completion_tokens=6).max_tokens == 6
    assert refusal(max_tokens=0).param == "max_tokens"
    assert refusal(max_completion_tokens=0).param == "max_completion_tokens"
    assert refusal(max_tokens=-2).param == "max_tokens"


def test_stop_is_a_string_or_a_list() -> None:
    assert chat(stop="x").stop == ("x",)
    assert chat(stop=["x", "yz"]).stop == ("x", "yz")
    assert chat(stop=[]).stop == ()
    assert len(chat(stop=["x"] * 16).stop) == 16
    assert refusal(stop=["x"] * 17).param == "stop"
    assert refusal(stop="").param == "stop[0]"
    assert refusal(stop=["x", 5]).param == "stop[1]"
    assert refusal(stop=5).param == "stop"


def test_roles_and_text_parts() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    request = chat(
        messages=[
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": parts},
            {"role": "assistant", "content": None},
            {"role": "assistant"},
            {"role": "function", "name": "f", "content": "5"},
            {
                "role": "assistant",
                "tool_calls": [{"id": "t", "function": {"name": "g", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "t", "content": "6"},
            {"role": "user", "content": ""},
        ]
    )
    assert request.prompt == (
        Message("system", "be brief"),
        Message("user", "one\ntwo"),
        Message("assistant", ""),
        Message("assistant", ""),
        Message("tool", "5", name="f"),
        Message("assistant", "", (ToolCall("g", "{}", "t"),)),
        Message("tool", "6", tool_call_id="t"),
        Message("user", ""),
    )


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ("hi", "messages"),
        (None, "messages"),
        ([5], "messages[0]"),
        ([{"content": "hi"}], "messages[0].role"),
        ([{"role": "pirate", "content": "hi"}], "messages[0].role"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": 5}], "messages[0].content"),
        ([{"role": "user", "content": ["hi"]}], "messages[0].content"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
            "messages[0].content",
        ),
        ([{"role": "assistant", "content": "a"}] * 2, "messages"),
    ],
)
def test_messages_that_make_no_sense(messages: object, param: str) -> None:
    assert refusal(messages=messages).param == param


def test_prompts() -> None:
    assert text(prompt="a").prompt == "a"
    assert text(prompt=["a"]).prompt == "a"
    assert text(prompt=[1, 2]).prompt_tokens == (1, 2)
    two = texts(prompt=["a", [3]], n=2, seed=1)
    assert [each.prompt or each.prompt_tokens for each in two] == ["a", "a", (3,), (3,)]
    assert [each.sampling.seed for each in two] == [1, 2, 1, 2]
    nonsense: list[object] = [[], [None], 5, None, {}, ["a", 1], [-1], [999], ["x"] * 17]
    for wrong in nonsense:
        with pytest.raises(ApiError) as caught:
            text(prompt=wrong)
        assert caught.value.param == "prompt"
    with pytest.raises(ApiError, match="prompt is required"):
        parse_body(TextBody, b"{}")


def test_logprobs_have_two_forms() -> None:
    assert chat(logprobs=True).num_top_logprobs == 0
    assert chat(logprobs=True, top_logprobs=20).num_top_logprobs == 20
    assert chat(logprobs=False, top_logprobs=0).num_top_logprobs is None
    assert refusal(top_logprobs=3).param == "top_logprobs"
    assert refusal(logprobs=True, top_logprobs=21).param == "top_logprobs"
    assert refusal(logprobs=3).param == "logprobs"
    assert text(logprobs=0).num_top_logprobs == 0
    assert text(logprobs=3).num_top_logprobs == 3
    with pytest.raises(ApiError, match="logprobs"):
        text(logprobs=True)


def test_response_formats() -> None:
    assert chat(response_format={"type": "text"}).sampling.constraint is None
    any_object = chat(response_format={"type": "json_object"}).sampling
    assert any_object.constraint == Constraint("json_schema", '{"type": "object"}')
    schema = {"type": "object", "properties": {"b": {"type": "string"}, "a": {"minimum": 0.5}}}
    named = {"name": "thing", "strict": True, "schema": schema}
    sampling = chat(response_format={"type": "json_schema", "json_schema": named}).sampling
    assert sampling.constraint == Constraint("json_schema", json.dumps(schema))
    for same in (
        {"response_format": {"type": "json_object", "schema": schema}},
        {"json_schema": schema},
        {"guided_json": json.dumps(schema)},
        {"structured_outputs": {"json": schema}},
    ):
        assert chat(**same).sampling.constraint == sampling.constraint
    for regex in ({"guided_regex": "a+"}, {"structured_outputs": {"regex": "a+"}}):
        assert chat(**regex).sampling.constraint == Constraint("regex", "a+")
    choice = chat(guided_choice=["a.b", "c"]).sampling.constraint
    assert choice == Constraint("regex", r"a\.b|c")
    lark = "start: /a+/"
    assert chat(grammar=lark).sampling.constraint == Constraint("lark", lark)
    nameless = chat(response_format={"type": "json_schema", "json_schema": {"name": "x"}})
    assert nameless.sampling.constraint == any_object.constraint


@pytest.mark.parametrize(
    ("format_", "param"),
    [
        ("json_object", "response_format"),
        ({}, "response_format.type"),
        ({"type": "yaml"}, "response_format.type"),
        ({"type": "json_schema"}, "response_format.json_schema"),
        (
            {"type": "json_schema", "json_schema": {"schema": "x"}},
            "response_format.json_schema.schema",
        ),
    ],
)
def test_response_formats_that_make_no_sense(format_: object, param: str) -> None:
    assert refusal(response_format=format_).param == param


def test_an_infinite_number_in_a_schema_is_refused() -> None:
    raw = (
        b'{"messages":[{"role":"user","content":"x"}],"response_format":{"type":"json_schema",'
        b'"json_schema":{"schema":{"minimum":1e999}}}}'
    )
    with pytest.raises(ApiError, match="is no JSON schema"):
        asked(raw)


def test_a_grammar_replaces_a_default_one() -> None:
    given = {"messages": [{"role": "user", "content": "x"}], "grammar": 'root ::= "a"'}
    default = SamplingParams(constraint=Constraint("json_schema", "{}"))
    asked_for = asked(json.dumps(given).encode(), default)
    assert asked_for.sampling.constraint == Constraint("gbnf", 'root ::= "a"')
    assert refusal(grammar="root ::= x", response_format={"type": "json_object"}).param == "grammar"
    assert refusal(grammar="").param == "grammar"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", "0.5"),
        ("temperature", True),
        ("top_p", 1.1),
        ("top_p", -0.1),
        ("top_k", -2),
        ("top_k", 1.5),
        ("top_k", 2**31),
        ("min_p", 2),
        ("typical_p", -1),
        ("repeat_penalty", 0),
        ("frequency_penalty", 2.1),
        ("presence_penalty", -2.1),
        ("penalty_last_n", -1),
        ("dry_multiplier", -1),
        ("dry_base", 0.5),
        ("dry_allowed_length", -1),
        ("dry_penalty_last_n", -1),
        ("seed", 1.5),
        ("seed", 2**63),
        ("seed", "7"),
        ("n", 17),
        ("n", 0),
        ("stream", "yes"),
        ("stream_options", True),
        ("speculate", 1),
        ("model", 5),
        ("max_tokens", "5"),
        ("tools", "x"),
    ],
)
def test_a_wrong_value_is_named(field: str, value: object) -> None:
    error = refusal(**{field: value})
    assert error.param == field
    assert error.code in ("invalid_value", "unsupported_parameter")


def test_a_wrong_value_is_shown_when_it_is_short() -> None:
    assert refusal(temperature=-3).message.endswith(", not -3")
    assert "xxx" not in refusal(temperature="x" * 500).message


def test_logit_bias_is_by_token_id_or_by_word() -> None:
    assert chat(logit_bias={"cat": 1}).sampling.logit_bias == ((99, 1.0), (97, 1.0), (116, 1.0))
    assert chat(logit_bias=[[5, 2], ["a", False]]).sampling.logit_bias == ((5, 2.0), (97, -1e9))
    assert chat(ignore_eos=True).sampling.logit_bias == ((END_OF_TURN, -1e9),)
    for wrong in ({"5": 101}, {"5": None}, {"999": 1}, {"5": True}, [1], [[-1, 1]]):
        param = refusal(logit_bias=wrong).param
        assert param is not None
        assert param.startswith("logit_bias")


def test_what_would_change_the_answer_is_refused_not_ignored() -> None:
    tool = [{"type": "function", "function": {"name": "f"}}]
    assert refusal(functions=tool).code == "unsupported_parameter"
    assert chat(tools=tool, tool_choice="none").prompt == (Message("user", "hi"),)
    assert chat(tools=[]).prompt == (Message("user", "hi"),)
    aliases = {"n_predict", "repetition_penalty"}
    for field in MEANINGFUL.keys() - ChatBody.model_fields.keys() - aliases:
        error = refusal(**{field: "something else"})
        assert (error.param, error.code) == (field, "unsupported_parameter")
        for harmless in MEANINGFUL[field]:
            assert chat(seed=1, **{field: harmless}) == chat(seed=1)
    with pytest.raises(ApiError, match="best_of"):
        text(best_of=2)
    assert len(texts(n=2, best_of=2)) == 2
    with pytest.raises(ApiError, match="echo with logprobs"):
        text(echo=True, logprobs=1)
    assert text(best_of=1, echo=False, suffix="", seed=1) == text(seed=1)


def test_a_gap_is_filled_in_the_models_own_tokens() -> None:
    assert text(prompt="a", suffix="b").prompt_tokens == (1, 97, 2, 98, 3)
    without = served_by(EchoCompleter(details=replace(DETAILS, infill_tokens=None)))
    body = parse_body(TextBody, b'{"prompt": "a", "suffix": "b"}')
    with pytest.raises(ApiError, match="no tokens for filling gaps"):
        body.asked(without, DEFAULT)


def test_a_conversation_that_ends_in_the_assistants_turn_goes_on_with_it() -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert chat(messages=turns).continue_final_message
    assert chat(messages=turns, continue_final_message=True).continue_final_message
    assert not chat(messages=turns, continue_final_message=False).continue_final_message
    assert not chat(messages=turns, add_generation_prompt=True).continue_final_message
    assert not chat().continue_final_message
    assert refusal(messages=[*turns, turns[1]]).param == "messages"
    assert refusal(continue_final_message=True).param == "continue_final_message"


def test_what_a_template_is_given() -> None:
    given = chat(chat_template_kwargs={"x": 1}, reasoning_effort="low").template
    assert json.loads(given.variables) == {"x": 1, "reasoning_effort": "low"}
    assert chat().template.variables == ""


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        (ChatBody, openai.types.chat.completion_create_params.CompletionCreateParamsBase),
        (TextBody, openai.types.completion_create_params.CompletionCreateParamsBase),
    ],
)
def test_every_field_of_openai_is_known(kind: type[AnswerBody], params: type) -> None:
    known = kind.model_fields.keys() | HARMLESS | MEANINGFUL.keys()
    assert set(params.__annotations__) - known == set()


def test_unknown_fields_are_ignored() -> None:
    extra = {"user": "me", "store": True, "metadata": {"a": "b"}, "service_tier": 5, "x": [[]]}
    assert chat(seed=1, **extra) == chat(seed=1)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"{}{}", "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "not JSON"),
        (b'{"a": "\xff"}', "not UTF-8: invalid start byte at byte 7"),
        ("{}".encode("utf-16"), "not UTF-8"),
        (b"[]", "must be a JSON object"),
        (b"5", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b"{}", "messages is required"),
    ],
)
def test_bodies_that_are_no_request(raw: bytes, message: str) -> None:
    with pytest.raises(ApiError, match=message) as caught:
        parse_body(ChatBody, raw)
    assert caught.value.status == 400


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none(number: str) -> None:
    raw = f'{{"prompt": "x", "temperature": {number}}}'
    with pytest.raises(ApiError) as caught:
        parse_body(TextBody, raw.encode())
    assert caught.value.param == "temperature"
