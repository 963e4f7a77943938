"""JSON schemas before llguidance sees them: bounded in size, and as narrow as they are meant.

JSON Schema lets an object have any other properties beside those that it names. Hardly anybody who
writes a schema means that, and a small model that may go on does. So such an object has no others
unless the schema says so, as with llama.cpp. This is left alone where objects are put together of
parts, each of which would then refuse the properties of the others.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any

from edgespec.errors import GrammarError

_MOST_VALUES = 50_000
_MOST_KEYS = 2_000  # of one object: the time that its properties take grows with their square

_OPTIONS = {"whitespace_pattern": r"[ ]|\r?\n[ \t]{0,20}"}
"""Between the parts of a value a space or an indented line: a model that may write as many spaces
as it likes sometimes never stops."""

_PARTS = ("allOf", "anyOf", "oneOf", "$ref")
_SCHEMAS = ("items", "additionalProperties", "additionalItems")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems", "items")
_MAPS = ("properties", "patternProperties", "$defs", "definitions")


def schema_for_llguidance(text: str) -> str:
    """The JSON schema `text` with our options, as JSON; raises GrammarError."""
    try:
        return _prepared(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise GrammarError(f"the JSON schema cannot be read: {error}", "check it") from error


def lark_for_llguidance(text: str) -> str:
    """A Lark grammar whose schemas (`%json`) are as `schema_for_llguidance` has them.

    What cannot be read stays, for llguidance to refuse. Raises GrammarError.
    """
    parts, place = [], 0
    for match in re.finditer(r"%json\s*(?=\{)", text):
        if match.start() < place:  # within a schema
            continue
        with contextlib.suppress(ValueError, RecursionError):
            schema, end = json.JSONDecoder().raw_decode(text, match.end())
            parts += [text[place : match.end()], _prepared(schema)]
            place = end
    return "".join([*parts, text[place:]])


def within(schema: dict[str, Any], place: str) -> dict[str, Any]:
    """A schema as the part at `place` of another one, which means there what it means alone.

    >>> within({"items": {"$ref": "#"}}, "#/anyOf/1")
    {'items': {'$ref': '#/anyOf/1'}}
    """
    part: dict[str, Any] = json.loads(json.dumps(schema))
    part.pop("$id", None)  # else references are to what has this name
    _close(part)
    for each in _schemas(part):
        reference = each.get("$ref")
        if isinstance(reference, str) and reference.startswith("#"):
            each["$ref"] = place + reference[1:]
    return part


def _prepared(schema: object) -> str:
    if schema is True:
        schema = {}
    if not isinstance(schema, dict):
        raise ValueError("no JSON object")
    _check_size(schema)
    _close(schema)
    return json.dumps(schema | {"x-guidance": _OPTIONS}, allow_nan=False)


def _check_size(schema: object) -> None:
    waiting, count = [schema], 0
    while waiting:
        value = waiting.pop()
        count += 1
        if isinstance(value, dict):
            if len(value) > _MOST_KEYS:
                raise _too_many(f"an object of {len(value):,} properties", _MOST_KEYS)
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    if count > _MOST_VALUES:
        raise _too_many(f"{count:,} values", _MOST_VALUES)


def _too_many(what: str, most: int) -> GrammarError:
    return GrammarError(f"the JSON schema has {what}", f"{most:,} are the most")


def _close(schema: dict[str, Any]) -> None:
    """Let objects have the properties that they name and no others, if that is safe everywhere."""
    objects = [each for each in _schemas(schema) if "properties" in each]
    has_parts = any("allOf" in each for each in _schemas(schema))
    if has_parts or any(part in each for each in objects for part in _PARTS):
        return
    for each in objects:
        if "patternProperties" not in each:
            each.setdefault("additionalProperties", False)


def _schemas(schema: object) -> Iterator[dict[str, Any]]:
    """A schema and all within it."""
    waiting = [schema]
    while waiting:
        value = waiting.pop()
        if not isinstance(value, dict):
            continue
        yield value
        waiting.extend(value[name] for name in _SCHEMAS if name in value)
        for name in _LISTS:
            inner = value.get(name)
            waiting.extend(inner if isinstance(inner, list) else ())
        for name in _MAPS:
            inner = value.get(name)
            waiting.extend(inner.values() if isinstance(inner, dict) else ())
