"""The objects that clients of Ollama get: lines of JSON, or one whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from edgespec.server.errors import ApiError, ollama_content
from edgespec.server.fields import Json
from edgespec.server.figures import logprob_entries, speculation_of
from edgespec.server.forms import JsonLines, Told
from edgespec.server.models import Served
from edgespec.server.speech import speech_of
from edgespec.server.tools import Toolbox
from edgespec.types import Chunk, Completion


class OllamaForm(JsonLines):
    """The objects of /api/chat and /api/generate, whole and in pieces."""

    def __init__(self, served: Served, tools: Toolbox | None, *, is_chat: bool) -> None:
        self._model = served.completer.model
        self._decode_token = served.completer.decode_token
        self._is_chat = is_chat
        self._speech = speech_of(tools)
        self._num_calls = 0

    def whole(self, answers: Sequence[Told]) -> Json:
        """All at once."""
        [told] = answers
        self._speech.feed(told.completion.text)
        self._speech.finish()
        said = self._said(self._speech.text, self._new_calls())
        if told.logprobs:
            said["logprobs"] = logprob_entries(told.logprobs, self._decode_token)
        return said | self._end(told.completion)

    def piece(self, _index: int, chunk: Chunk) -> list[Json]:
        """More of the text; calls are told when they are whole."""
        before = len(self._speech.text)
        self._speech.feed(chunk.text)
        text = self._speech.text[before:]
        if not text and not chunk.logprobs:
            return []
        said = self._said(text, [])
        if chunk.logprobs:
            said["logprobs"] = logprob_entries(chunk.logprobs, self._decode_token)
        return [said | {"done": False}]

    def ended(self, _index: int, completion: Completion) -> list[Json]:
        """The calls, then why the answer ended and what it took."""
        before = len(self._speech.text)
        self._speech.finish()
        text, calls = self._speech.text[before:], self._new_calls()
        events = [self._said(text, calls) | {"done": False}] if text or calls else []
        return [*events, self._said("", []) | self._end(completion)]

    def failure(self, error: ApiError) -> Json:
        """The event of an error."""
        return ollama_content(error)

    def _said(self, text: str, calls: list[Json]) -> Json:
        head: Json = {"model": self._model.name, "created_at": time_now()}
        if not self._is_chat:
            return head | {"response": text}
        message: Json = {"role": "assistant", "content": text}
        return head | {"message": message | ({"tool_calls": calls} if calls else {})}

    def _new_calls(self) -> list[Json]:
        calls = []
        for call in self._speech.calls:
            try:
                arguments = json.loads(call.arguments)
            except ValueError:
                arguments = {"text": call.arguments}
            calls.append({"id": call.id, "function": {"name": call.name, "arguments": arguments}})
        return calls

    def _end(self, completion: Completion) -> Json:
        timings = completion.timings
        return {
            "done": True,
            "done_reason": completion.finish_reason,
            "total_duration": round((timings.prompt_ms + timings.decode_ms) * 1e6),
            "load_duration": 0,
            "prompt_eval_count": timings.num_prompt_tokens,
            "prompt_eval_duration": round(timings.prompt_ms * 1e6),
            "eval_count": len(completion.token_ids),
            "eval_duration": round(timings.decode_ms * 1e6),
            "speculation": speculation_of(completion, self._model),
        }


def time_now() -> str:
    """The time, as Ollama writes it."""
    return datetime.now(UTC).isoformat()
