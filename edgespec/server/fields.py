"""The types of request fields, for the bodies that are made of them."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from edgespec.server.errors import ApiError

_ANY_OBJECT = '{"type": "object"}'


def _text_of(content: object) -> object:
    """Join a list of text parts by newlines, as llama-server and vLLM do; leave all else."""
    if not isinstance(content, list):
        return content
    texts = []
    for part in content:
        text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
        if not isinstance(text, str):
            raise PydanticCustomError("unsupported", "Input should be text parts only")
        texts.append(text)
    return "\n".join(texts)


def _one_prompt(prompt: object) -> object:
    if not isinstance(prompt, list):
        return prompt
    if prompt and all(isinstance(item, int | list) for item in prompt):
        raise PydanticCustomError("unsupported", "token ids are not supported: send text")
    if len(prompt) != 1:
        raise PydanticCustomError("unsupported", "Input should be one string: one prompt a request")
    return prompt[0]


def _as_list(stop: object) -> object:
    return [stop] if isinstance(stop, str) else stop


Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
Share = Annotated[float, Field(ge=0, le=1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
TokenId = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]
Bias = Annotated[float, Field(ge=-100, le=100)]
Limit = Annotated[int, Field(ge=-1, le=2**31 - 1)]
Seed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
NotEmpty = Annotated[str, Field(min_length=1)]
StopStrings = Annotated[list[NotEmpty], Field(max_length=16), BeforeValidator(_as_list)]
Content = Annotated[str | None, BeforeValidator(_text_of)]
Prompt = Annotated[str, BeforeValidator(_one_prompt)]


class Strict(BaseModel):
    """No coercion: "0.5" is not 0.5, true is not 1; unknown fields are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False, frozen=True)


class StreamOptions(Strict):
    """What a streamed answer carries beside text."""

    include_usage: bool | None = None


class NamedSchema(Strict):
    """The schema of `response_format`; its name is for people."""

    definition: dict[str, Any] | None = Field(default=None, alias="schema")


class ResponseFormat(Strict):
    """The form that the answer's text must have."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None

    def schema_text(self) -> str | None:
        """JSON text of the schema to obey, or None for free text."""
        if self.type == "text":
            return None
        if self.type == "json_object":
            return _ANY_OBJECT
        if self.json_schema is None:
            raise ApiError(
                400,
                "response_format.json_schema is required with this type",
                param="response_format.json_schema",
                code="missing_required_parameter",
            )
        if self.json_schema.definition is None:
            return _ANY_OBJECT
        return _schema_text(self.json_schema.definition)


def _schema_text(schema: dict[str, Any]) -> str:
    try:
        return json.dumps(schema, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise ApiError(
            400,
            f"the schema cannot be written as JSON: {error}",
            param="response_format.json_schema.schema",
            code="invalid_value",
        ) from error
