"""Chat templates: a conversation to the text that the model was trained on.

Templates come inside GGUF files and are Jinja programs of strangers, so they run in Jinja's
immutable sandbox. The environment is that of Hugging Face Transformers, which templates expect.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, NoReturn

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from edgespec.errors import UsageError
from edgespec.types import NO_TEMPLATE_VALUES, Message, TemplateValues

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""For models that bring no template of their own."""

_END_MARK = "\U0010fffd"
"""Stands at the end of a message that is to be continued; a letter that nobody uses."""


class ChatTemplate:
    """Renders conversations with one model's template; keeps no state between calls."""

    def __init__(self, source: str | None, bos_token: str = "", eos_token: str = "") -> None:
        """`source` is the Jinja text, None for ChatML; raises UsageError if it does not parse."""
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals.update(raise_exception=_refuse, strftime_now=_strftime_now)
        try:
            self._template = environment.from_string(source or CHATML)
        except Exception as error:  # a stranger's program fails in whatever way it likes
            raise UsageError(
                f"the model's chat template does not parse: {_one_line(error)}",
                "use another GGUF file",
            ) from error
        self._bos_token = bos_token
        self._eos_token = eos_token

    def render(
        self,
        messages: Sequence[Message],
        *,
        continue_final_message: bool = False,
        values: TemplateValues = NO_TEMPLATE_VALUES,
    ) -> str:
        """The prompt text up to where the assistant is to speak.

        With `continue_final_message` that is the end of the last message, which is the assistant's.
        Raises UsageError when the template refuses the conversation (some want user and assistant
        to take turns, or know no system role), or when there is no such message.
        """
        if not continue_final_message:
            return self._rendered(messages, values, add_generation_prompt=True)
        if not messages or messages[-1].role != "assistant":
            raise UsageError(
                "the conversation does not end in an assistant's message to be continued",
                "add one, or ask without continue_final_message",
            )
        *others, last = messages
        marked = replace(last, content=last.content + _END_MARK)
        text = self._rendered([*others, marked], values, add_generation_prompt=False)
        begun, mark, _ = text.rpartition(_END_MARK)
        if not mark or not begun.endswith(last.content.lstrip()):  # some templates strip
            raise UsageError(
                "the model's chat template changes the message that is to be continued",
                "send it as a plain prompt",
            )
        return begun

    def _rendered(
        self, messages: Sequence[Message], values: TemplateValues, *, add_generation_prompt: bool
    ) -> str:
        variables: dict[str, object] = json.loads(values.variables) if values.variables else {}
        if values.tools:
            variables["tools"] = json.loads(values.tools)
        try:
            return self._template.render(
                variables
                | {
                    "messages": [_as_dict(message) for message in messages],
                    "add_generation_prompt": add_generation_prompt,
                    "bos_token": self._bos_token,
                    "eos_token": self._eos_token,
                }
            )
        except Exception as error:  # a stranger's program fails in whatever way it likes
            raise UsageError(
                f"the model's chat template refuses this conversation: {_one_line(error)}",
                "check the roles and their order",
            ) from error


def _as_dict(message: Message) -> dict[str, Any]:
    """A message as templates know it: arguments are objects, not their text."""
    known: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        known["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": _as_object(call.arguments)},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id:
        known["tool_call_id"] = message.tool_call_id
    if message.name:
        known["name"] = message.name
    return known


def _as_object(arguments: str) -> object:
    try:
        return json.loads(arguments)
    except ValueError:  # what a model made of it
        return arguments


def _one_line(error: Exception) -> str:
    line = " ".join(str(error).split())
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def _to_json(value: object, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)
