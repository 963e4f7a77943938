"""Whether answers are JSON of a schema, as far as suites use schemas."""

from __future__ import annotations

import json
from collections.abc import Sequence
from statistics import fmean
from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}


def share_valid(schema: str, texts: Sequence[str]) -> float:
    """The share of texts that are JSON and satisfy the text of a schema."""
    form = json.loads(schema)
    return fmean(_is_valid(form, text) for text in texts)


def _is_valid(schema: dict[str, Any], text: str) -> bool:
    try:
        return satisfies(json.loads(text), schema)
    except (ValueError, RecursionError):
        return False


def satisfies(value: Any, schema: Any) -> bool:  # noqa: ANN401 - any JSON
    """Whether types, values, bounds, lengths and properties are those of a schema.

    An object has no other properties than the schema's unless it says so, as in constraints of
    answers. Patterns, formats and whatever else a schema can say are not looked at.

    >>> satisfies({"age": 7}, {"type": "object", "properties": {"age": {"type": "integer"}}})
    True
    >>> satisfies([True], {"type": "array", "items": {"type": "integer"}})
    False
    """
    if not isinstance(schema, dict):
        return True
    names = schema.get("type", [])
    if names and not any(
        _is_a(value, name) for name in ([names] if isinstance(names, str) else names)
    ):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if isinstance(value, dict):
        return _has_properties(value, schema)
    if isinstance(value, list):
        return _within(len(value), schema, "Items") and all(
            satisfies(item, schema.get("items")) for item in value
        )
    return isinstance(value, bool | str | None) or _within(value, schema, "imum")


def _is_a(value: Any, name: str) -> bool:  # noqa: ANN401 - any JSON
    kinds = _TYPES.get(name, (object,))
    return isinstance(value, kinds) and (not isinstance(value, bool) or bool in kinds)


def _has_properties(value: dict[str, Any], schema: dict[str, Any]) -> bool:
    known = schema.get("properties", {})
    others = schema.get("additionalProperties", not known)
    return all(name in value for name in schema.get("required", ())) and all(
        satisfies(part, known[name]) if name in known else others is not False
        for name, part in value.items()
    )


def _within(number: float, schema: dict[str, Any], ending: str) -> bool:
    low, high = schema.get(f"min{ending}"), schema.get(f"max{ending}")
    return (low is None or number >= low) and (high is None or number <= high)
