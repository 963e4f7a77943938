"""Tools: what a request offers, the form in which a model calls them, and how a call is forced.

A model was trained to call tools in a form of its own, which its chat template shows by example:

    hermes   <tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>   Qwen, Hermes
    llama    {"name": "f", "parameters": {"x": 1}}                         Llama 3
    mistral  [{"name": "f", "arguments": {"x": 1}}]                        Mistral

What stands before Llama's and Mistral's (`<|python_tag|>`, `[TOOL_CALLS]`) are control tokens
there, which have no text. A model whose template is given no tools has none.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from edgespec.grammar.json_schema import within
from edgespec.server.fields import Json, Strict, invalid, unsupported
from edgespec.types import Constraint, ModelDetails

MAX_TOOLS = 128
_MOST_CALLS = 16
"""Calls that a forced answer may make."""


@dataclass(frozen=True, slots=True)
class ToolForm:
    """How a model writes calls: `opens` and `closes` stand around each, "" where nothing does."""

    name: Literal["hermes", "llama", "mistral"]
    arguments: Literal["arguments", "parameters"]
    opens: str = ""
    closes: str = ""
    is_list: bool = False


HERMES = ToolForm("hermes", "arguments", "<tool_call>", "</tool_call>")
LLAMA = ToolForm("llama", "parameters")
MISTRAL = ToolForm("mistral", "arguments", is_list=True)


class Function(Strict):
    """A function that the model may call; `parameters` is a JSON schema."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")]
    description: str | None = None
    parameters: Json | None = None
    strict: bool | None = None


class Tool(Strict):
    """A tool in the form of chat completions."""

    type: Literal["function"]
    function: Function


Tools = Annotated[list[Tool], Field(max_length=MAX_TOOLS)]


class FunctionName(Strict):
    """Which function must be called."""

    name: str


class NamedChoice(Strict):
    """A choice of one function."""

    type: Literal["function"]
    function: FunctionName


ToolChoice = Literal["none", "auto", "required"] | NamedChoice


@dataclass(frozen=True, slots=True)
class Toolbox:
    """The tools that an answer may, or must, use, and the form in which this model calls them.

    `forced` are those of which one must be called, none where the model may do as it likes. Whether
    calls may be several was said, or is None: then they may, but are not asked for.
    """

    form: ToolForm
    functions: tuple[Function, ...]
    forced: tuple[Function, ...] = ()
    is_parallel: bool | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """What can be called."""
        return tuple(each.name for each in self.functions)

    @property
    def text(self) -> str:
        """What the chat template is given, as JSON."""
        return json.dumps(
            [
                {
                    "type": "function",
                    "function": {
                        "name": each.name,
                        "description": each.description or "",
                        "parameters": each.parameters or {"type": "object", "properties": {}},
                    },
                }
                for each in self.functions
            ]
        )

    def constraint(self, free: Constraint | None) -> Constraint | None:
        """What an answer must be that may, or must, call these; `free` is what its text may be.

        An answer that must call has no text. Raises ApiError.
        """
        if free is not None and free.kind != "json_schema":
            raise invalid("tools", "tools go with a JSON schema as format, not with a grammar")
        if self.forced:
            return Constraint("lark", self._grammar(self.forced))
        if free is None:
            return None
        if not self.form.opens:
            return Constraint("json_schema", json.dumps(self._call_or(json.loads(free.text))))
        return Constraint(
            "lark", self._grammar(self.functions, "| answer") + f"answer: %json {free.text}\n"
        )

    def _call_or(self, answer: Json) -> Json:
        """One schema for calls and for an answer, where marks do not tell them apart.

        Of two schemas that begin with the same letter a Lark grammar goes on with the first.
        """
        form = self.form
        place = "#/anyOf/0/items/anyOf" if form.is_list else "#/anyOf/0/anyOf"
        call: Json = {
            "anyOf": [
                {
                    "type": "object",
                    "properties": {
                        "name": {"const": each.name},
                        form.arguments: within(
                            each.parameters or {"type": "object"},
                            f"{place}/{index}/properties/{form.arguments}",
                        ),
                    },
                    "required": ["name", form.arguments],
                    "additionalProperties": False,
                }
                for index, each in enumerate(self.functions)
            ]
        }
        most = 1 if self.is_parallel is False else _MOST_CALLS
        calls = {"type": "array", "items": call, "minItems": 1, "maxItems": most}
        return {"anyOf": [calls if form.is_list else call, within(answer, "#/anyOf/1")]}

    def _grammar(self, functions: Sequence[Function], otherwise: str = "") -> str:
        """Calls of `functions` in Lark, each with a JSON schema of its own."""
        form = self.form
        call = "call"
        if form.opens:
            call = f"{json.dumps(form.opens + chr(10))} call {json.dumps(chr(10) + form.closes)}"
        calls = "one"
        if self.is_parallel or (self.is_parallel is None and otherwise):
            between = {"hermes": "\n", "llama": "; ", "mistral": ", "}[form.name]
            calls = f"one ({json.dumps(between)} one){{0,{_MOST_CALLS - 1}}}"
        calls = f'"[" {calls} "]"' if form.is_list else calls
        lines = [
            f"start: calls {otherwise}".rstrip(),
            f"calls: {calls}",
            f"one: {call}",
            "call: " + " | ".join(f"call_{index}" for index in range(len(functions))),
        ]
        for index, each in enumerate(functions):
            head = f'{{"name": {json.dumps(each.name)}, "{form.arguments}": '
            schema = json.dumps(each.parameters or {"type": "object"})
            lines.append(f"call_{index}: {json.dumps(head)} arguments_{index} {json.dumps('}')}")
            lines.append(f"arguments_{index}: %json {schema}")
        return "\n".join(lines) + "\n"


def toolbox(
    functions: Sequence[Function],
    choice: ToolChoice | None,
    details: ModelDetails,
    *,
    is_parallel: bool | None = None,
) -> Toolbox | None:
    """What an answer has to do with tools; None where it has nothing to. Raises ApiError."""
    for index, each in enumerate(functions):
        try:
            json.dumps(each.parameters, allow_nan=False)
        except ValueError as error:
            raise invalid("tools", f"tools[{index}]: the schema is no JSON: {error}") from error
    forced: tuple[Function, ...] = ()
    if isinstance(choice, NamedChoice):
        forced = tuple(each for each in functions if each.name == choice.function.name)
        if not forced:
            raise invalid("tool_choice", f"tool_choice: there is no tool {choice.function.name!r}")
    elif choice == "required":
        forced = tuple(functions)
        if not forced:
            raise invalid("tool_choice", "tool_choice: there is no tool to call")
    if not functions or choice == "none":
        return None
    return Toolbox(tool_form(details), tuple(functions), forced, is_parallel)


def tool_form(details: ModelDetails) -> ToolForm:
    """The form in which a model calls tools, told by its chat template; raises ApiError."""
    template = details.chat_template
    if "tools" in template:
        if "<tool_call>" in template and "<function=" not in template:
            return HERMES
        if "[TOOL_CALLS]" in template and "[ARGS]" not in template:
            return MISTRAL
        if '"parameters":' in template:
            return LLAMA
    raise unsupported(
        "tools", "this model's chat template has no form of tool calls that is known here"
    )
