"""What `soak.py` asks: questions in the words of each API, and what no server should take.

A question is a body in OpenAI's words. `ways` tells in which other APIs it can be asked, `pieces`
reads what any of them answers, and `misbehaved` makes a request that is to be refused.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgespec.models.registry import DEFAULT_TARGET

Json = dict[str, Any]
NUM_QUESTIONS = 48
ROOT = Path(__file__).parents[1]
TEXT = "".join((ROOT / name).read_text() for name in ("README.md", "docs/serve.md"))
LENGTHS = (0, 0, 0, 100, 100, 300, 300, 800, 2000, 4500)
"""Letters of a document in a prompt."""

TOOL = {
    "name": "look_up",
    "description": "Looks a word up in the documentation.",
    "parameters": {
        "type": "object",
        "properties": {"word": {"type": "string"}, "page": {"type": "integer"}},
        "required": ["word"],
    },
}
SCHEMA = {
    "type": "object",
    "properties": {
        "title": {"type": "string"},
        "stars": {"type": "integer", "minimum": 1, "maximum": 5},
        "tags": {"type": "array", "items": {"enum": ["fast", "safe", "small"]}, "maxItems": 3},
    },
    "required": ["title", "stars", "tags"],
}
TASKS = (
    "Say in one sentence what this is about.",
    "List three words that matter here.",
    "Write a Python function that adds two numbers, then one that subtracts them.",
    "Name the days of the week twice.",
    "Repeat the last line, then translate it into French.",
    "Count from 20 down to 1.",
)


@dataclass(frozen=True, slots=True)
class Question:
    """A body for /v1/chat/completions, or for /v1/completions if it has a `prompt`."""

    kind: str
    body: Json


def questions(noise: random.Random) -> list[Question]:
    """All kinds by turns, half of them greedy; some share how they begin."""
    return [_question(number, noise) for number in range(NUM_QUESTIONS)]


def _question(number: int, noise: random.Random) -> Question:
    kind = ("chat", "talk", "completion", "tools", "schema", "logprobs")[number % 6]
    length = noise.choice(LENGTHS)
    start = noise.choice((0, 0, noise.randrange(len(TEXT) - max(LENGTHS))))
    document = TEXT[start : start + length]
    body: Json = {"max_tokens": noise.randint(8, 40), "temperature": 0.0}
    if number // 6 % 2:
        body |= {"temperature": 0.8, "seed": number}
    if kind == "completion":
        return Question(kind, body | {"prompt": document or "Once upon a time"})
    asked = f"{document}\n\n{noise.choice(TASKS)}".strip()
    messages = [{"role": "user", "content": asked}]
    if kind == "talk":
        told = {"role": "assistant", "content": "I do not know yet."}
        messages = [{"role": "system", "content": "Be brief."}, *messages, told]
        messages.append({"role": "user", "content": noise.choice(TASKS)})
    if kind == "tools":
        messages[0]["content"] += " Look up the words that you do not know."
        body |= {"tools": [{"type": "function", "function": TOOL}]}
        body |= {"tool_choice": noise.choice(("auto", "required"))}
    elif kind == "schema":
        schema = {"name": "review", "schema": SCHEMA}
        body |= {"response_format": {"type": "json_schema", "json_schema": schema}}
    elif kind == "logprobs":
        body |= {"logprobs": True, "top_logprobs": 2}
    return Question(kind, body | {"messages": messages})


# The APIs


def as_ollama(body: Json) -> Json:
    """For /api/chat."""
    options = {"num_predict": body["max_tokens"], "temperature": body["temperature"]}
    asked = {"model": DEFAULT_TARGET, "messages": body["messages"]}
    if "seed" in body:
        options["seed"] = body["seed"]
    if "response_format" in body:
        asked["format"] = SCHEMA
    return asked | {"options": options}


def as_messages(body: Json) -> Json:
    """For /v1/messages."""
    turns = [turn for turn in body["messages"] if turn["role"] != "system"]
    system = {"system": "Be brief."} if len(turns) < len(body["messages"]) else {}
    return {"messages": turns, "max_tokens": body["max_tokens"], "temperature": 0.0} | system


def as_responses(body: Json) -> Json:
    """For /v1/responses."""
    asked: Json = {"input": body["messages"], "max_output_tokens": body["max_tokens"]}
    if "tools" in body:
        tools = [{"type": "function"} | TOOL]
        asked |= {"tools": tools, "tool_choice": body["tool_choice"]}
    if "response_format" in body:
        asked["text"] = {"format": {"type": "json_schema", "name": "review", "schema": SCHEMA}}
    return asked | {"temperature": 0.0}


def ways(question: Question) -> list[tuple[str, Callable[[Json], Json]]]:
    """Paths that have the words for a question, and how it is said there."""
    is_greedy, kind = question.body["temperature"] == 0, question.kind
    if kind == "completion":
        return [("/v1/completions", dict), ("/completion", dict)]
    found: list[tuple[str, Callable[[Json], Json]]] = [("/v1/chat/completions", dict)]
    if kind in ("chat", "talk", "schema"):
        found.append(("/api/chat", as_ollama))
    if is_greedy and kind in ("chat", "talk"):
        found.append(("/v1/messages", as_messages))
    if is_greedy and kind != "logprobs":
        found.append(("/v1/responses", as_responses))
    return found


def pieces(event: Json) -> Iterator[tuple[str, str]]:
    """What an event or a whole answer of any API says."""
    for choice in event.get("choices", ()):
        yield from _pieces_of_choice(choice)
    match event:
        case {"message": {"content": str(text)}} | {"content": str(text)}:
            yield "text", text
        case {"type": "content_block_delta", "delta": {"text": text}}:
            yield "text", text
        case {"type": "response.output_text.delta", "delta": text}:
            yield "text", text
        case {"type": "response.function_call_arguments.delta", "delta": text}:
            yield "calls", text
        case {"type": "response.output_item.added", "item": {"name": name}}:
            yield "calls", name
        case {"content": list(parts)} | {"output": list(parts)}:
            for part in parts:
                yield "calls", part.get("name", "") + part.get("arguments", "")
                for block in part.get("content", [part]):
                    yield "text", block.get("text", "")


def _pieces_of_choice(choice: Json) -> Iterator[tuple[str, str]]:
    said = choice.get("delta") or choice.get("message") or choice
    yield "text", said.get("content") or choice.get("text") or ""
    for call in said.get("tool_calls") or ():
        function = call["function"]
        yield "calls", function.get("name", "") + function.get("arguments", "")
    for entry in (choice.get("logprobs") or {}).get("content") or ():
        yield "logprobs", json.dumps(entry)


def joined(events: Iterable[Json]) -> dict[str, str]:
    """All that was said, by what it is."""
    said = {"text": "", "calls": "", "logprobs": ""}
    for event in events:
        for what, piece in pieces(event):
            said[what] += piece
    return said


LAST_TYPES = ("message_stop", "response.completed", "response.incomplete")


def is_last(event: Json) -> bool:
    """Whether this ends a stream as its API has it."""
    return event.get("stop") is True or event.get("done") is True or event.get("type") in LAST_TYPES


# What no server should take


def misbehaved(noise: random.Random) -> tuple[str, str, bytes, bool]:
    """What it is, its path and body, and whether it must be refused."""
    chat = {"messages": [{"role": "user", "content": "Hi."}], "max_tokens": 8}
    plain = {"prompt": "Hi.", "max_tokens": 8}
    large = {"messages": [{"role": "user", "content": "All work and no play. " * 47_663}]}
    grammars = (
        'root ::= a root "b"\na ::= "x"?',
        "root ::= " + "(" * 20_000 + '"a"' + ")" * 20_000,
        'root ::= ("a"* ){1000000000}',
        "root ::= [",
    )
    schemas: Sequence[Json] = (
        {"type": "array", "items": {"type": "integer"}, "minItems": 20_000_000},
        {"type": "string", "pattern": "(a|a?)+" * 300 + "b"},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}},
    )
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": noise.choice(schemas)}}
    kinds: Sequence[tuple[str, str, Json | bytes, bool]] = (
        ("broken JSON", "/v1/chat/completions", b'{"messages": [', True),
        ("no UTF-8", "/v1/messages", b'{"model": "\xff"}', True),
        ("deep JSON", "/v1/chat/completions", b'{"messages": ' + b"[" * 100_000, True),
        ("wrong type", "/v1/chat/completions", chat | {"temperature": "hot"}, True),
        ("wrong type", "/api/chat", {"model": DEFAULT_TARGET, "messages": "Hi."}, True),
        ("wrong type", "/v1/responses", {"input": 5}, True),
        ("no messages", "/v1/messages", {"messages": [], "max_tokens": 8}, True),
        ("wrong token", "/v1/completions", plain | {"prompt": [999_999_999]}, True),
        ("wrong token", "/v1/completions", plain | {"logit_bias": {"999999999": 1}}, True),
        ("too many", "/v1/completions", plain | {"n": 17}, True),
        ("unserved field", "/v1/chat/completions", chat | {"mirostat": 2}, True),
        ("unknown model", "/v1/chat/completions", chat | {"model": "../../etc/passwd"}, True),
        ("unknown path", "/v1/nothing", chat, True),
        ("1 MB prompt", "/v1/chat/completions", large, True),
        ("1 MB prompt", "/completion", {"prompt": "x y " * 262_144}, True),
        ("too large", "/v1/chat/completions", b" " * 5_000_000, True),
        ("hostile grammar", "/completion", plain | {"grammar": noise.choice(grammars)}, False),
        ("hostile schema", "/v1/chat/completions", chat | {"response_format": schema}, False),
    )
    what, path, body, is_bad = noise.choice(kinds)
    return what, path, body if isinstance(body, bytes) else json.dumps(body).encode(), is_bad


def line_of(body: str) -> str:
    """The message of an error of any API; empty if there is none, or it is of several lines."""
    try:
        error = json.loads(body)["error"]
        message = str(error if isinstance(error, str) else error["message"])
    except (ValueError, KeyError, TypeError):
        return ""
    return "" if "\n" in message else message
