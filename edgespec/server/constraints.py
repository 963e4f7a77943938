"""What an answer must be, in the words of OpenAI, llama-server and vLLM."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

from pydantic import Field

from edgespec.server.errors import ApiError
from edgespec.server.fields import Body, Json, NotEmpty, Strict, invalid
from edgespec.types import Constraint

ANY_OBJECT = Constraint("json_schema", '{"type": "object"}')


class NamedSchema(Strict):
    """The schema of `response_format`; its name is for people."""

    definition: Json | None = Field(default=None, alias="schema")


class ResponseFormat(Strict):
    """The form that the answer's text must have; llama-server takes a schema in `json_object`."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None
    definition: Json | None = Field(default=None, alias="schema")

    def constraint(self) -> Constraint | None:
        """What it means, None for free text; raises ApiError."""
        if self.type == "text":
            return None
        if self.type == "json_object":
            return of_schema(self.definition, "response_format.schema")
        if self.json_schema is None:
            raise ApiError(
                400,
                "response_format.json_schema is required with this type",
                param="response_format.json_schema",
                code="missing_required_parameter",
            )
        return of_schema(self.json_schema.definition, "response_format.json_schema.schema")


class StructuredOutputs(Strict):
    """vLLM's way to say it; one of these."""

    json_: Json | str | None = Field(default=None, alias="json")
    regex: NotEmpty | None = None
    choice: Annotated[list[NotEmpty], Field(min_length=1)] | None = None
    grammar: NotEmpty | None = None
    json_object: bool | None = None


class ConstraintFields(Body):
    """The fields of a body that say what its answer must be; one of them."""

    response_format: ResponseFormat | None = None
    json_schema: Json | str | None = None
    grammar: NotEmpty | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: Json | str | None = None
    guided_regex: NotEmpty | None = None
    guided_choice: Annotated[list[NotEmpty], Field(min_length=1)] | None = None
    guided_grammar: NotEmpty | None = None

    def constraint(self) -> Constraint | None:
        """What the answer must be, if anything; raises ApiError if several things are said."""
        outputs = self.structured_outputs or StructuredOutputs()
        said = {
            "response_format": self.response_format.constraint() if self.response_format else None,
            "json_schema": _optional_schema(self.json_schema, "json_schema"),
            "grammar": _grammar(self.grammar),
            "guided_json": _optional_schema(self.guided_json, "guided_json"),
            "guided_regex": _regex(self.guided_regex),
            "guided_choice": _choice(self.guided_choice),
            "guided_grammar": _grammar(self.guided_grammar),
            "structured_outputs.json": _optional_schema(outputs.json_, "structured_outputs.json"),
            "structured_outputs.regex": _regex(outputs.regex),
            "structured_outputs.choice": _choice(outputs.choice),
            "structured_outputs.grammar": _grammar(outputs.grammar),
            "structured_outputs.json_object": ANY_OBJECT if outputs.json_object else None,
        }
        given = {name: constraint for name, constraint in said.items() if constraint is not None}
        if len(given) > 1:
            names = list(given)
            raise invalid(names[1], f"{' and '.join(names)} exclude each other; send one")
        return next(iter(given.values()), None)


def of_schema(schema: Json | str | None, param: str) -> Constraint:
    """JSON that obeys a schema, given as an object or as its text; any object without one."""
    if schema is None or schema == {}:
        return ANY_OBJECT
    try:
        value: Any = json.loads(schema) if isinstance(schema, str) else schema
        value = {} if value is True else value
        if not isinstance(value, dict):
            raise ValueError("it is not an object")
        return Constraint("json_schema", json.dumps(value, allow_nan=False))
    except (ValueError, RecursionError) as error:
        raise invalid(param, f"{param} is no JSON schema: {error}") from error


def _optional_schema(schema: Json | str | None, param: str) -> Constraint | None:
    return None if schema is None else of_schema(schema, param)


def _regex(text: str | None) -> Constraint | None:
    return None if text is None else Constraint("regex", text)


def _choice(texts: list[str] | None) -> Constraint | None:
    return None if texts is None else Constraint("regex", "|".join(map(_literal, texts)))


def _literal(text: str) -> str:
    """A text as a regular expression of Rust's, in which fewer letters may be escaped."""
    return re.sub(r"([\\.+*?()|\[\]{}^$#&\-~/])", r"\\\1", text)


def _grammar(text: str | None) -> Constraint | None:
    """GBNF, or Lark if it begins as that does."""
    if text is None:
        return None
    is_lark = re.search(r"^\s*(\?|!)?start\s*:(?!:=)", text, re.MULTILINE) is not None
    return Constraint("lark" if is_lark else "gbnf", text)
