"""The objects that clients of Anthropic get: a message, whole or block by block."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from edgespec.server.errors import ApiError, anthropic_content
from edgespec.server.fields import Json
from edgespec.server.figures import speculation_of, timings_of
from edgespec.server.forms import NamedEvents, Told, new_id
from edgespec.server.models import Served
from edgespec.server.speech import Arguments, Begun, Part, Words, speech_of
from edgespec.server.tools import Toolbox
from edgespec.types import Chunk, Completion


class MessageForm(NamedEvents):
    """`message`, and the events in which it grows: a block of content after the other."""

    def __init__(self, served: Served, tools: Toolbox | None) -> None:
        self._model = served.completer.model
        self._speech = speech_of(tools)
        self._blocks: list[Json] = []
        self._begun: Json | None = None
        self._envelope: Json = {
            "id": new_id("msg_"),
            "type": "message",
            "role": "assistant",
            "model": served.name,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
        }

    def whole(self, answers: Sequence[Told]) -> Json:
        """One message."""
        [told] = answers
        for part in [*self._speech.feed(told.completion.text), *self._speech.finish()]:
            self._grow(part)
        content = [_finished(block) for block in self._blocks]
        return {
            **self._envelope,
            "content": content,
            **self._end(told.completion),
            "usage": _usage(told.completion),
            **self._figures(told.completion),
        }

    def piece(self, _index: int, chunk: Chunk) -> list[Json]:
        """More of the message, begun with its head."""
        events: list[Json] = []
        if self._begun is None:
            num_prompt = chunk.timings.num_prompt_tokens if chunk.timings is not None else 0
            num_cached = chunk.timings.num_cached_tokens if chunk.timings is not None else 0
            usage = _usage_of(num_prompt, num_cached, 0)
            self._begun = {"type": "message_start", "message": self._envelope | {"usage": usage}}
            events = [self._begun, {"type": "ping"}]
        return events + [e for part in self._speech.feed(chunk.text) for e in self._grow(part)]

    def ended(self, _index: int, completion: Completion) -> list[Json]:
        """What was held back, and why the message ended."""
        events = [event for part in self._speech.finish() for event in self._grow(part)]
        delta = {
            "type": "message_delta",
            "delta": self._end(completion),
            "usage": _usage(completion),
            **self._figures(completion),
        }
        return [*events, *self._close(), delta, {"type": "message_stop"}]

    def failure(self, error: ApiError) -> Json:
        """The event of an error."""
        return anthropic_content(error)

    def _grow(self, part: Part) -> list[Json]:
        match part:
            case Words(text):
                events = self._open({"type": "text", "text": ""})
                self._blocks[-1]["text"] += text
                return [*events, self._delta({"type": "text_delta", "text": text})]
            case Begun(_, id_, name):
                id_ = id_.replace("call_", "toolu_", 1)
                return self._open({"type": "tool_use", "id": id_, "name": name, "input": {}})
            case Arguments(_, text):
                block = self._blocks[-1]
                block["text"] = block.get("text", "") + text
                return [self._delta({"type": "input_json_delta", "partial_json": text})]

    def _open(self, block: Json) -> list[Json]:
        """Begin a block, unless it is text and such a one is under way."""
        if block["type"] == "text" and self._blocks and self._blocks[-1]["type"] == "text":
            return []
        events = self._close()
        self._blocks.append(block)
        index = len(self._blocks) - 1
        start = {"type": "content_block_start", "index": index, "content_block": block.copy()}
        return [*events, start]

    def _close(self) -> list[Json]:
        index = len(self._blocks) - 1
        return [{"type": "content_block_stop", "index": index}] if self._blocks else []

    def _delta(self, delta: Json) -> Json:
        return {
            "type": "content_block_delta",
            "index": len(self._blocks) - 1,
            "delta": delta,
        }

    def _end(self, completion: Completion) -> Json:
        reason = {"stop": "end_turn", "length": "max_tokens"}[completion.finish_reason]
        if completion.stop_string is not None:
            reason = "stop_sequence"
        elif self._speech.calls and reason == "end_turn":
            reason = "tool_use"
        return {"stop_reason": reason, "stop_sequence": completion.stop_string}

    def _figures(self, completion: Completion) -> Json:
        return {
            "timings": timings_of(completion.timings, completion.stats),
            "speculation": speculation_of(completion, self._model),
        }


def _finished(block: Json) -> Json:
    """A block as it is when it is whole; arguments that are no object are shown as text."""
    if block["type"] != "tool_use":
        return block
    text = block.get("text", "")
    try:
        given: Any = json.loads(text or "{}")
    except ValueError:
        given = {"text": text}
    without = {name: value for name, value in block.items() if name != "text"}
    return without | {"input": given if isinstance(given, dict) else {"value": given}}


def _usage(completion: Completion) -> Json:
    timings = completion.timings
    num_said = len(completion.token_ids)
    return _usage_of(timings.num_prompt_tokens, timings.num_cached_tokens, num_said)


def _usage_of(num_prompt: int, num_cached: int, num_said: int) -> Json:
    """Tokens that were cached are not counted among the others, as Anthropic does."""
    return {
        "input_tokens": num_prompt - num_cached,
        "cache_read_input_tokens": num_cached,
        "cache_creation_input_tokens": 0,
        "output_tokens": num_said,
    }
