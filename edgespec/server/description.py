"""The OpenAPI description of the endpoints, made of the very models that read their bodies."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from edgespec import __version__
from edgespec.server.fields import Json
from edgespec.server.service import Endpoint

_ERRORS = {
    "400": "The request makes no sense, or asks for what is not served.",
    "401": "An API key is wanted.",
    "403": "The request comes from a foreign web page.",
    "404": "There is no such thing.",
    "413": "The body is too large.",
    "415": "The body is not JSON.",
    "429": "Every place in the queue is taken.",
    "501": "This model cannot do that.",
    "503": "The model is loading, or cannot answer now.",
}
_OPENAI_ERROR: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_ANTHROPIC_ERROR: Json = {
    "type": "object",
    "required": ["type", "error"],
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
        },
    },
}
_OLLAMA_ERROR: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string"}},
}


def describe(endpoints: Sequence[Endpoint]) -> Json:
    """The whole description."""
    kinds = {each.body for each in endpoints if each.body is not None}
    ordered = sorted(kinds, key=lambda kind: (kind.__name__, kind.__module__))
    keys, schemas = models_json_schema(
        [(kind, "validation") for kind in ordered],
        ref_template="#/components/schemas/{model}",
    )
    references = {kind: keys[kind, "validation"] for kind in ordered}
    paths: Json = {}
    for endpoint in endpoints:
        for path in endpoint.paths:
            operation = _operation(endpoint, path, references)
            paths.setdefault(_template(path), {})[endpoint.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "EdgeSpec", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": {
                **schemas.get("$defs", {}),
                "Error": _OPENAI_ERROR,
                "AnthropicError": _ANTHROPIC_ERROR,
                "OllamaError": _OLLAMA_ERROR,
            },
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _operation(endpoint: Endpoint, path: str, references: dict[type[BaseModel], Json]) -> Json:
    operation: Json = {
        "summary": endpoint.summary,
        "operationId": re.sub(r"\W+", "_", f"{endpoint.method} {path}").strip("_").lower(),
        "responses": {"200": {"description": "The answer.", "content": _content(endpoint)}},
    }
    errors = {"content": {"application/json": {"schema": {"$ref": _error_reference(path)}}}}
    for status, description in _ERRORS.items():
        operation["responses"][status] = {"description": description, **errors}
    if path.endswith("/health"):
        operation["responses"]["503"] = {
            "description": "The model is loading.",
            "content": _content(endpoint),
        }
    if endpoint.body is not None:
        content = {"application/json": {"schema": references[endpoint.body]}}
        operation["requestBody"] = {"required": True, "content": content}
    if names := re.findall(r"\{(\w+)", path):
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in names
        ]
    return operation


def _content(endpoint: Endpoint) -> Json:
    if endpoint.is_text:
        return {"text/plain": {"schema": {"type": "string"}}}
    content: Json = {"application/json": {"schema": {"type": "object"}}}
    if endpoint.is_list:
        content = {"application/json": {"schema": {"type": ["object", "array"]}}}
    if endpoint.streams is not None:
        content[endpoint.streams] = {}
    return content


def _error_reference(path: str) -> str:
    name = "Error"
    if path.startswith("/v1/messages"):
        name = "AnthropicError"
    elif path.startswith("/api/"):
        name = "OllamaError"
    return f"#/components/schemas/{name}"


def _template(path: str) -> str:
    """A path as OpenAPI writes it.

    >>> _template("/v1/models/{name:path}")
    '/v1/models/{name}'
    """
    return re.sub(r"\{(\w+):\w+\}", r"{\1}", path)
