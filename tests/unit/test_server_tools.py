"""Tools: how calls are read from what models say, and how they are forced."""

from __future__ import annotations

import doctest
import itertools
import json
from dataclasses import replace

import pytest
from grammar_support import admits
from hypothesis import given
from hypothesis import strategies as st
from server_support import DETAILS

from edgespec.server import called, speech
from edgespec.server.errors import ApiError
from edgespec.server.speech import Arguments, Begun, Part, Speech, Words
from edgespec.server.tools import HERMES, LLAMA, MISTRAL, Function, Toolbox, ToolForm, toolbox
from edgespec.types import Constraint, ModelDetails

WEATHER = Function(
    name="weather",
    description="of a town",
    parameters={"type": "object", "properties": {"town": {"type": "string"}}},
)
CLOCK = Function(name="clock")
ARGUMENTS = '{"town": "Ulm {}", "days": [1, {"a": "\\"}"}]}'


def call_of(form: ToolForm, name: str = "weather", arguments: str = ARGUMENTS) -> str:
    call = f'{{"name": "{name}", "{form.arguments}": {arguments}}}'
    return f"{form.opens}\n{call}\n{form.closes}" if form.opens else call


def answer_of(form: ToolForm, *names: str) -> str:
    between = {"hermes": "\n", "llama": "; ", "mistral": ", "}[form.name]
    calls = between.join(call_of(form, name) for name in names)
    return f"[{calls}]" if form.is_list else calls


def read(reader: Speech, pieces: list[str]) -> list[Part]:
    return [part for piece in pieces for part in reader.feed(piece)] + reader.finish()


def told(parts: list[Part]) -> tuple[str, list[tuple[str, str]]]:
    """The text, and name and arguments of each call, put together as a client does it."""
    text = ""
    calls: list[tuple[str, str]] = []
    for part in parts:
        match part:
            case Words(more):
                text += more
            case Begun(index, _, name):
                assert index == len(calls)
                calls.append((name, ""))
            case Arguments(index, more):
                calls[index] = calls[index][0], calls[index][1] + more
    return text, calls


def test_what_the_docstrings_show() -> None:
    for module in (speech, called):
        assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("form", [HERMES, LLAMA, MISTRAL], ids=lambda form: form.name)
@given(cuts=st.lists(st.integers(0, 250), max_size=12))
def test_calls_are_read_wherever_the_text_is_cut(form: ToolForm, cuts: list[int]) -> None:
    answer = answer_of(form, "weather", "clock")
    places = [0, *sorted(min(cut, len(answer)) for cut in cuts), len(answer)]
    reader = Speech(form)
    parts = read(reader, [answer[a:b] for a, b in itertools.pairwise(places)])
    assert told(parts) == ("", [("weather", ARGUMENTS), ("clock", ARGUMENTS)])
    assert [(call.name, call.arguments) for call in reader.calls] == told(parts)[1]
    assert len({call.id for call in reader.calls}) == 2


@given(text=st.text(alphabet='<tool_call>{}"n\n ', max_size=60), step=st.integers(1, 7))
def test_words_come_out_as_they_went_in(text: str, step: int) -> None:
    for form in (None, LLAMA, MISTRAL):
        reader = Speech(form)
        parts = read(reader, [text[at : at + step] for at in range(0, len(text), step)])
        assert told(parts) == (text, [])


def test_words_before_a_call_are_told_at_once() -> None:
    reader = Speech(HERMES)
    assert reader.feed("I look it up. <too") == [Words("I look it up.")]
    assert reader.feed("l time>") == [Words(" <tool time>")]
    parts = reader.feed("\n\n" + call_of(HERMES)) + reader.finish()
    assert told(parts) == ("", [("weather", ARGUMENTS)])


@pytest.mark.parametrize(
    ("call", "name", "arguments"),
    [
        ('{"arguments": {"x": 1}, "name": "f"}', "f", '{"x": 1}'),
        ('{"name": "f", "arguments": "{\\"x\\": 1}"}', "f", '{"x": 1}'),
        ('{"name": "f"}', "f", "{}"),
        ('{"type": "function", "name": "f", "parameters": {}}', "f", "{}"),
        ('{"name": "f", "arguments": {}, "id": "abc"}', "f", "{}"),
    ],
)
def test_calls_in_other_words(call: str, name: str, arguments: str) -> None:
    assert told(read(Speech(HERMES), [f"<tool_call>{call}</tool_call>"])) == (
        "",
        [(name, arguments)],
    )


@pytest.mark.parametrize("call", ["<tool_call>what?", "<tool_call>{}", '<tool_call>{"name": "f'])
def test_what_is_no_call_is_words(call: str) -> None:
    assert told(read(Speech(HERMES), [call])) == (call, [])


@given(cuts=st.lists(st.integers(0, 250), max_size=12))
def test_a_call_in_a_block_of_code_is_one_if_there_is_such_a_tool(cuts: list[int]) -> None:
    call = f'{{\n  "name": "weather",\n  "arguments": {ARGUMENTS}\n}}'
    for answer, words in (
        (f"```json\n{call}\n```", ""),
        (f"Well:\n\n```json\n{call}\n```\n```\n{call}```", "Well:"),
        (call, ""),
    ):
        places = [0, *sorted(min(cut, len(answer)) for cut in cuts), len(answer)]
        pieces = [answer[a:b] for a, b in itertools.pairwise(places)]
        text, calls = told(read(Speech(HERMES, names=["clock", "weather"]), pieces))
        assert text == words
        assert calls == [("weather", ARGUMENTS)] * answer.count("weather")
        assert told(read(Speech(HERMES, names=["clock"]), pieces)) == (answer, [])


def test_code_that_is_no_call_comes_out_as_it_went_in() -> None:
    for answer in ("```python\nx\n```\n", '```json\n{"name": "Ann"}\n``` and ``', "{", "```"):
        for step in (1, 2, 100):
            pieces = [answer[at : at + step] for at in range(0, len(answer), step)]
            assert told(read(Speech(HERMES, names=["weather"]), pieces)) == (answer, [])


def test_a_call_that_is_cut_keeps_what_there_is() -> None:
    cut = call_of(HERMES)[:50]
    text, [(name, arguments)] = told(read(Speech(HERMES), [cut]))
    assert (text, name) == ("", "weather")
    assert cut.endswith(arguments)
    assert arguments


def test_only_the_first_call_counts_unless_calls_are_parallel() -> None:
    answer = answer_of(HERMES, "weather", "clock")
    reader = Speech(HERMES, is_parallel=False)
    assert told(read(reader, [answer]))[1] == [("weather", ARGUMENTS)]


def test_the_form_is_told_by_the_template() -> None:
    def form_of(template: str) -> ToolForm:
        found = toolbox([CLOCK], None, replace(DETAILS, chat_template=template))
        assert found is not None
        return found.form

    assert form_of("{% if tools %}<tool_call>") is HERMES
    assert form_of("{% if tools %}[TOOL_CALLS]") is MISTRAL
    assert form_of('{% if tools %}{"name": x, "parameters": y}') is LLAMA
    for template in (
        "",
        "<tool_call>",
        "tools: <tool_call><function=f>",
        "tools: [TOOL_CALLS][ARGS]",
    ):
        with pytest.raises(ApiError) as caught:
            form_of(template)
        assert (caught.value.param, caught.value.code) == ("tools", "unsupported_parameter")


def test_whether_a_tool_is_called() -> None:
    assert toolbox([], None, ModelDetails()) is None
    assert toolbox([CLOCK], "none", ModelDetails()) is None
    free = toolbox([CLOCK, WEATHER], "auto", DETAILS)
    assert free is not None
    assert free.constraint(None) is None
    assert [tool["function"]["name"] for tool in json.loads(free.text)] == ["clock", "weather"]
    with pytest.raises(ApiError, match="no tool to call"):
        toolbox([], "required", DETAILS)


@pytest.mark.parametrize("form", [HERMES, LLAMA, MISTRAL], ids=lambda form: form.name)
def test_a_call_is_forced_by_a_grammar_over_the_schemas_of_the_tools(form: ToolForm) -> None:
    constraint = Toolbox(form, (CLOCK, WEATHER), (WEATHER,)).constraint(None)
    assert constraint is not None
    assert constraint.kind == "lark"
    assert f"arguments_0: %json {json.dumps(WEATHER.parameters)}" in constraint.text
    assert "clock" not in constraint.text
    assert "{0," not in constraint.text, "more than one is not asked for"
    several = Toolbox(form, (CLOCK, WEATHER), (CLOCK, WEATHER), is_parallel=True).constraint(None)
    assert several is not None
    assert "one){0,15}" in several.text
    forced = Toolbox(form, (CLOCK,), (CLOCK,))
    with_format = forced.constraint(Constraint("json_schema", "{}"))
    assert with_format == forced.constraint(None), "the format is of text, and there is none"


@pytest.mark.parametrize("form", [HERMES, LLAMA, MISTRAL], ids=lambda form: form.name)
def test_an_answer_in_a_format_may_still_be_a_call(form: ToolForm) -> None:
    format_ = {
        "type": "array" if form.is_list else "object",
        "properties": {"name": {"type": "string"}, "like": {"$ref": "#/$defs/town"}},
        "items": {"$ref": "#/$defs/town"},
        "required": ["name"],
        "$defs": {"town": {"enum": ["Ulm", "Bonn"]}},
    }
    recursive = {
        "type": "object",
        "properties": {"town": {"const": "Ulm"}, "then": {"$ref": "#"}},
        "required": ["town"],
    }
    route = Function(name="route", parameters=recursive)
    tools = Toolbox(form, (CLOCK, WEATHER, route))
    constraint = tools.constraint(Constraint("json_schema", json.dumps(format_)))
    assert constraint is not None
    answer = '["Ulm", "Bonn"]' if form.is_list else '{"name": "clock", "like": "Bonn"}'
    assert admits(constraint, answer)
    assert not admits(constraint, answer.replace("Bonn", "Rome"))
    for name, arguments, is_right in (
        ("weather", '{"town": "Rome"}', True),
        ("weather", '{"town": 1}', False),
        ("route", '{"town": "Ulm", "then": {"town": "Ulm"}}', True),
        ("route", '{"town": "Ulm", "then": {"town": "Bonn"}}', False),
        ("rain", "{}", False),
    ):
        call = call_of(form, name, arguments)
        assert admits(constraint, f"[{call}]" if form.is_list else call) is is_right
    with pytest.raises(ApiError, match="not with a grammar"):
        tools.constraint(Constraint("gbnf", 'root ::= "x"'))


@pytest.mark.parametrize("form", [LLAMA, MISTRAL], ids=lambda form: form.name)
def test_an_answer_that_names_no_tool_is_no_call(form: ToolForm) -> None:
    answer = '{"name": "Ann", "parameters": {"x": 1}}'
    answer = f" [{answer}, {answer}] " if form.is_list else f" {answer}\n"
    for step in (1, 5, 100):
        pieces = [answer[at : at + step] for at in range(0, len(answer), step)]
        assert told(read(Speech(form, names=["weather"]), pieces)) == (answer, [])
