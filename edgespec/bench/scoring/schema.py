"""Whether answers are JSON of a schema, as the JSON Schema standard has it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from statistics import fmean
from typing import Any


def schema_text(value: Any) -> str:  # noqa: ANN401 - whatever is in the file
    """The text of a schema; raises TypeError for what is none."""
    from jsonschema import SchemaError  # much to load

    if not isinstance(value, dict):
        raise TypeError("schema must be an object")
    try:
        _validator_of(value).check_schema(value)
    except SchemaError as error:
        raise TypeError(f"schema is no JSON schema at {error.json_path}") from error
    return json.dumps(value, ensure_ascii=False)


def share_valid(schema: str, texts: Sequence[str]) -> float:
    """The share of texts that are JSON and satisfy the text of a schema.

    >>> share_valid('{"properties": {"age": {"type": "integer"}}}', ['{"age": 7}', '{"age": '])
    0.5
    """
    form = json.loads(schema)
    validator = _validator_of(form)(form)

    def is_valid(text: str) -> bool:
        try:
            return bool(validator.is_valid(json.loads(text)))
        except (ValueError, RecursionError):
            return False

    return fmean(map(is_valid, texts))


def _validator_of(schema: dict[str, Any]) -> Any:  # noqa: ANN401 - a class of jsonschema
    """What validates by the version of the standard that a schema names, by the latest else."""
    from jsonschema import Draft202012Validator
    from jsonschema.validators import validator_for

    return validator_for(schema, Draft202012Validator)
