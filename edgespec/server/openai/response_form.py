"""The objects of a response: whole, or in the events in which it grows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgespec.server.errors import ApiError
from edgespec.server.fields import Json
from edgespec.server.figures import logprob_entries, speculation_of, timings_of
from edgespec.server.forms import NamedEvents, Told, new_id, now
from edgespec.server.models import Served
from edgespec.server.openai.response_body import ResponseBody
from edgespec.server.speech import Arguments, Begun, Part, Speech, Words, speech_of
from edgespec.server.tools import Toolbox
from edgespec.types import Chunk, Completion


class ResponseForm(NamedEvents):
    """`response`, and the events in which it grows: an item of output after the other."""

    def __init__(self, served: Served, tools: Toolbox | None, body: ResponseBody) -> None:
        self._model = served.completer.model
        self._decode_token = served.completer.decode_token
        self._speech: Speech = speech_of(tools)
        self._body = body
        self._number = 0
        self._open: Json | None = None
        self._items: list[Json] = []
        self._base = self._envelope()

    def whole(self, answers: Sequence[Told]) -> Json:
        """The response with all its output."""
        [told] = answers
        logprobs = logprob_entries(told.logprobs, self._decode_token)
        parts = [*self._speech.feed(told.completion.text), *self._speech.finish()]
        for part in parts:
            self._grow(part, logprobs)
            logprobs = []
        self._close()
        return self._over(told.completion)

    def opening(self) -> list[Json]:
        """That there is a response, and that it is being written."""
        return [
            self._event(f"response.{state}", response=self._base)
            for state in ("created", "in_progress")
        ]

    def piece(self, _index: int, chunk: Chunk) -> list[Json]:
        """More of the output."""
        logprobs = logprob_entries(chunk.logprobs, self._decode_token)
        events: list[Json] = []
        for part in self._speech.feed(chunk.text):
            events += self._grow(part, logprobs)
            logprobs = []
        return events

    def ended(self, _index: int, completion: Completion) -> list[Json]:
        """What was held back, and the whole response."""
        events = [event for part in self._speech.finish() for event in self._grow(part, [])]
        events += self._close()
        response = self._over(completion)
        return [*events, self._event(f"response.{response['status']}", response=response)]

    def failure(self, error: ApiError) -> Json:
        """The event of an error."""
        return self._event("error", code=error.code, message=error.message, param=error.param)

    def _grow(self, part: Part, logprobs: list[Json]) -> list[Json]:
        match part:
            case Words(text):
                return self._say(text, logprobs)
            case Begun(_, id_, name):
                events = self._close()
                item = {
                    "type": "function_call",
                    "id": new_id("fc_"),
                    "call_id": id_,
                    "name": name,
                    "arguments": "",
                    "status": "in_progress",
                }
                return [*events, self._begin(item)]
            case Arguments(_, text):
                assert self._open is not None
                self._open["arguments"] += text
                return [self._of_item("response.function_call_arguments.delta", delta=text)]

    def _say(self, text: str, logprobs: list[Json]) -> list[Json]:
        events: list[Json] = []
        if self._open is None or self._open["type"] != "message":
            events = self._close()
            part: Json = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            item: Json = {"type": "message", "id": new_id("msg_"), "role": "assistant"}
            events.append(self._begin(item | {"status": "in_progress", "content": []}))
            events.append(
                self._of_item("response.content_part.added", content_index=0, part=part.copy())
            )
            self._items[-1]["content"] = [part]
        assert self._open is not None
        said = self._open["content"][0]
        said["text"] += text
        said["logprobs"] = [*said["logprobs"], *logprobs]
        delta = {"content_index": 0, "delta": text, "logprobs": logprobs}
        return [*events, self._of_item("response.output_text.delta", **delta)]

    def _begin(self, item: Json) -> Json:
        self._open = item
        self._items.append(item)
        return self._event(
            "response.output_item.added", output_index=len(self._items) - 1, item=item.copy()
        )

    def _close(self) -> list[Json]:
        """The item under way is whole."""
        item = self._open
        if item is None:
            return []
        events: list[Json] = []
        if item["type"] == "message":
            part = item["content"][0]
            text = {"text": part["text"], "logprobs": part["logprobs"]}
            events = [
                self._of_item("response.output_text.done", content_index=0, **text),
                self._of_item("response.content_part.done", content_index=0, part=part.copy()),
            ]
        else:
            told = {"arguments": item["arguments"], "name": item["name"]}
            events = [self._of_item("response.function_call_arguments.done", **told)]
        item["status"] = "completed"
        self._open = None
        where = {"output_index": len(self._items) - 1}
        return [*events, self._event("response.output_item.done", **where, item=item.copy())]

    def _over(self, completion: Completion) -> Json:
        is_cut = completion.finish_reason == "length"
        timings = completion.timings
        num_said = len(completion.token_ids)
        return self._base | {
            "status": "incomplete" if is_cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "output": self._items,
            "usage": {
                "input_tokens": timings.num_prompt_tokens,
                "input_tokens_details": {
                    "cached_tokens": timings.num_cached_tokens,
                    "cache_write_tokens": 0,
                },
                "output_tokens": num_said,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": timings.num_prompt_tokens + num_said,
            },
            "timings": timings_of(timings, completion.stats),
            "speculation": speculation_of(completion, self._model),
        }

    def _envelope(self) -> Json:
        body = self._body
        given = body.model_dump(by_alias=True, exclude_none=True)
        return {
            "id": new_id("resp_"),
            "object": "response",
            "created_at": now(),
            "status": "in_progress",
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": body.metadata or {},
            "model": self._model.name,
            "output": [],
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "previous_response_id": None,
            "reasoning": given.get("reasoning", {}),
            "store": False,
            "temperature": body.temperature,
            "text": {"format": given.get("text", {}).get("format", {"type": "text"})},
            "tool_choice": given.get("tool_choice", "auto"),
            "tools": [
                {"strict": False, "parameters": None} | tool for tool in given.get("tools", [])
            ],
            "top_logprobs": body.top_logprobs or 0,
            "top_p": body.top_p,
            "truncation": body.truncation or "disabled",
            "usage": None,
        }

    def _of_item(self, kind: str, **fields: Any) -> Json:  # noqa: ANN401
        assert self._items
        where = {"item_id": self._items[-1]["id"], "output_index": len(self._items) - 1}
        return self._event(kind, **where, **fields)

    def _event(self, kind: str, **fields: Any) -> Json:  # noqa: ANN401
        self._number += 1
        return {"type": kind, "sequence_number": self._number - 1, **fields}
