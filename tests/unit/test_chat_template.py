"""Chat templates: programs of strangers, which may refuse or fail but never break out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgespec.errors import UsageError
from edgespec.llama.template import ChatTemplate
from edgespec.types import Message, Role, TemplateValues, ToolCall

ASK = [Message("user", "Why?")]
TALK = [Message("system", "Be brief."), *ASK, Message("assistant", "So."), Message("user", "So?")]
CONTENTS = st.text(st.characters(exclude_categories=["Cs"]))
ROLES: list[Role] = ["system", "user", "assistant", "tool"]


@pytest.mark.parametrize("source", [None, ""])
def test_without_a_template_it_is_chatml(source: str | None) -> None:
    assert ChatTemplate(source).render(TALK) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nWhy?<|im_end|>\n"
        "<|im_start|>assistant\nSo.<|im_end|>\n"
        "<|im_start|>user\nSo?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


@given(st.lists(st.builds(Message, st.sampled_from(ROLES), CONTENTS), max_size=4))
def test_contents_are_text_and_never_template(messages: list[Message]) -> None:
    expected = "".join(f"<|im_start|>{m.role}\n{m.content}<|im_end|>\n" for m in messages)
    assert ChatTemplate(None).render(messages) == expected + "<|im_start|>assistant\n"


def test_braces_in_a_message_are_left_alone() -> None:
    rendered = ChatTemplate(None).render([Message("user", "{{ 7 * 6 }} {% raw %}")])
    assert "{{ 7 * 6 }} {% raw %}" in rendered


def test_templates_find_what_transformers_gives_them() -> None:
    source = (
        "{{ bos_token }}{%- for m in messages %}\n"
        "  {%- if loop.first %}{% continue %}{% endif %}\n"
        "  {{- m.role | tojson }}{{ m['content'] }}{{ eos_token }}\n"
        "{% endfor %}\n"
        "{% if tools is defined %}tools{% endif %}\n"
        "{{ {'ü': [1]} | tojson }}{{ strftime_now('%%') }}\n"
        "{% if add_generation_prompt %}go{% endif %}"
    )
    rendered = ChatTemplate(source, "<s>", "</s>").render([*ASK, Message("assistant", "So.")])
    assert rendered.startswith('<s>"assistant"So.</s>')
    assert rendered.endswith('{"ü": [1]}%\ngo')


def test_blocks_leave_no_lines_behind() -> None:
    source = (
        "{% for m in messages %}\n    {% if true %}\n{{ m.content }}\n    {% endif %}\n{% endfor %}"
    )
    assert ChatTemplate(source).render(ASK) == "Why?\n"


def test_rendering_keeps_nothing() -> None:
    template = ChatTemplate("{% set ns = namespace(n=0) %}{% set ns.n = ns.n + 1 %}{{ ns.n }}")
    assert [template.render(ASK) for _ in range(3)] == ["1", "1", "1"]


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in messages %}",
        "{{ messages",
        "{% endfor %}",
        "{% no_such_tag %}",
        "{{ 'x' | no_such_filter }}",
        "{{ " + "(" * 5000,
        "{% for x in y %}" * 30 + "{% endfor %}" * 30,
    ],
    ids=lambda source: source[:20],
)
def test_a_template_that_does_not_parse_is_a_usage_error(source: str) -> None:
    with pytest.raises(UsageError, match="chat template does not parse") as caught:
        ChatTemplate(source)
    assert str(caught.value).isprintable()
    assert caught.value.remedy


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('roles must alternate') }}",
        "{{ raise_exception('roles\nmust alternate') }}",
        "{{ messages[7].content.strip() }}",
        "{{ 1 + 'x' }}",
        "{{ 1 / 0 }}",
        "{{ range(10 ** 9) | list }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% include 'file' %}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{% set _ = messages.append(1) %}",
        "{{ messages[0].update({'role': 'x'}) }}",
        "{{ lipsum.__globals__['os'].system('true') }}",
    ],
)
def test_a_template_that_fails_is_a_usage_error(source: str) -> None:
    template = ChatTemplate(source)
    with pytest.raises(UsageError, match="chat template refuses this conversation") as caught:
        template.render(ASK)
    assert str(caught.value).isprintable()
    assert caught.value.remedy


def test_the_template_says_why_it_refuses() -> None:
    source = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}ok"
    template = ChatTemplate(source)
    assert template.render(ASK) == "ok"
    with pytest.raises(UsageError, match="no system"):
        template.render(TALK)


STRIPPING = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}</{{ m.role }}>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def open_turn(source: str | None, said: str) -> str:
    """The prompt that continues an answer which has said so much."""
    messages = [*TALK[:2], Message("assistant", said)]
    return ChatTemplate(source).render(messages, continue_final_message=True)


@given(CONTENTS | st.sampled_from(["", " ", "e", "end", "im_end|>", "assistant", "Why?"]))
def test_a_message_that_is_continued_ends_the_prompt_as_it_stands(said: str) -> None:
    """Even if it is empty, or says what the template writes after it."""
    asked = ChatTemplate(None).render(TALK[:2])
    assert open_turn(None, said) == asked + said


@given(CONTENTS)
def test_where_the_template_strips_only_the_beginning_is_stripped(said: str) -> None:
    asked = ChatTemplate(STRIPPING).render(TALK[:2])
    assert open_turn(STRIPPING, said) == asked + said.lstrip()


@pytest.mark.parametrize("messages", [[], ASK, TALK])
def test_only_an_assistants_message_can_be_continued(messages: list[Message]) -> None:
    with pytest.raises(UsageError, match="does not end in an assistant's message") as caught:
        ChatTemplate(None).render(messages, continue_final_message=True)
    assert caught.value.remedy


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in messages %}{{ m.content | upper }}{% endfor %}",
        "{% for m in messages %}{{ m.content | length }}{% endfor %}",
        "{{ messages[0].content }}",
    ],
)
def test_a_template_that_changes_what_is_continued_is_refused(source: str) -> None:
    with pytest.raises(UsageError, match="changes the message that is to be continued"):
        open_turn(source, "So it is.")


def test_tools_calls_and_variables_reach_the_template() -> None:
    template = ChatTemplate(
        "{{ tools[0].function.name if tools else 'none' }} {{ style }}"
        "{% for m in messages %}"
        "{% for c in m.tool_calls %}|{{ c.id }} {{ c.function.name }} {{ c.function.arguments.x }}"
        "{% endfor %}|{{ m.tool_call_id }} {{ m.name }}{% endfor %}"
    )
    messages = [
        Message("assistant", "", (ToolCall("f", '{"x": 5}', "a"),)),
        Message("tool", "6", tool_call_id="a", name="f"),
    ]
    tools = '[{"type": "function", "function": {"name": "f"}}]'
    values = TemplateValues(tools, '{"style": "brief"}')
    assert template.render(messages, values=values) == "f brief|a f 5| |a f"
    assert template.render(messages[1:]) == "none |a f"


def test_arguments_that_are_no_json_stay_text() -> None:
    template = ChatTemplate("{{ messages[0].tool_calls[0].function.arguments }}")
    assert template.render([Message("assistant", "", (ToolCall("f", "{x"),))]) == "{x"


def test_variables_do_not_replace_the_conversation() -> None:
    template = ChatTemplate("{{ messages[0].content }}{{ bos_token }}", "<s>")
    values = TemplateValues(variables='{"messages": [], "bos_token": "", "tools": 5}')
    assert template.render([Message("user", "hi")], values=values) == "hi<s>"
