"""What every dialect's form of an answer does, and how its events are written.

An answer goes to a client whole, as one object, or in events as it comes. A form is made for one
request, which may ask for several answers, told apart by their numbers.
"""

from __future__ import annotations

import json
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from edgespec.server.errors import ApiError
from edgespec.server.fields import Json
from edgespec.types import Chunk, Completion, TokenLogprob


@dataclass(frozen=True, slots=True)
class Told:
    """One whole answer."""

    chunks: tuple[Chunk, ...]
    completion: Completion

    @property
    def logprobs(self) -> list[TokenLogprob]:
        """Those of all its tokens, if they were asked for."""
        return [logprob for chunk in self.chunks for logprob in chunk.logprobs]


class AnswerForm(ABC):
    """Turns the chunks of a request's answers into the objects that a client gets."""

    media_type = "text/event-stream; charset=utf-8"
    last_words = b""
    wants_progress = False

    @abstractmethod
    def whole(self, answers: Sequence[Told]) -> Json | list[Json]:
        """The object of answers that are not streamed."""

    def opening(self) -> list[Json]:
        """The events before the first text."""
        return []

    @abstractmethod
    def piece(self, index: int, chunk: Chunk) -> list[Json]:
        """The events of a chunk of one answer; the last one is told to `ended`, too."""

    @abstractmethod
    def ended(self, index: int, completion: Completion) -> list[Json]:
        """The events after the last text of one answer."""

    def closing(self, completions: Sequence[Completion]) -> list[Json]:
        """The events after all answers."""
        return []

    def failure(self, error: ApiError) -> Json:
        """The event of an error after the first event."""
        return error.content

    def frame(self, event: Json) -> bytes:
        """The bytes of an event; ASCII, as some clients split lines at other line separators."""
        return f"data: {_as_json(event)}\n\n".encode("ascii")


class NamedEvents(AnswerForm):
    """A form whose events have a type, which is also the name of the server-sent event."""

    def frame(self, event: Json) -> bytes:
        """The bytes of an event with its name."""
        return f"event: {event.get('type', 'error')}\n".encode("ascii") + super().frame(event)


class JsonLines(AnswerForm):
    """A form whose events are lines of JSON."""

    media_type = "application/x-ndjson"

    def frame(self, event: Json) -> bytes:
        """The bytes of an event."""
        return f"{_as_json(event)}\n".encode("ascii")


def new_id(prefix: str) -> str:
    """A name that no other answer has."""
    return prefix + secrets.token_hex(12)


def now() -> int:
    """Seconds since 1970."""
    return int(time.time())


def _as_json(event: Json) -> str:
    return json.dumps(event, separators=(",", ":"), allow_nan=False)
