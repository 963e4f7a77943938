"""Answers in OpenAI's forms: chat and text, whole and in pieces.

A whole answer is one object. A streamed one is: pieces of text as they come, one piece with the
finish reason (and our own `timings` and `speculation`), and, if asked for, one with the usage.
`timings` and `speculation` are extensions; clients that do not know them skip them.
"""

from __future__ import annotations

import codecs
import math
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from edgespec import __version__
from edgespec.types import Chunk, Completion, SpeculationStats, Timings, TokenLogprob

Json = dict[str, Any]
DecodeToken = Callable[[int], bytes]

_LEAST_LOGPROB = -9999.0
"""What OpenAI writes for a token without any chance: JSON has no infinity."""


class AnswerForm(Protocol):
    """Turns the chunks of one answer into the objects that a client gets."""

    def whole(self, chunks: Sequence[Chunk], completion: Completion) -> Json:
        """The object of an answer that is not streamed."""
        ...

    def opening(self) -> Json | None:
        """The object that comes before the first text."""
        ...

    def piece(self, chunk: Chunk) -> Json | None:
        """The object of one chunk, or None if there is nothing to tell yet."""
        ...

    def closing(self, completion: Completion) -> list[Json]:
        """The objects after the last text."""
        ...


class _Form:
    """What the two forms share: the envelope and the end."""

    def __init__(
        self, prefix: str, kind: str, model: str, decode_token: DecodeToken, include_usage: bool
    ) -> None:
        self._decode_token = decode_token
        self._include_usage = include_usage
        self._envelope: Json = {
            "id": f"{prefix}-{secrets.token_hex(12)}",
            "object": kind,
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": f"edgespec-{__version__}",
        }

    def _whole(self, choice: Json, completion: Completion) -> Json:
        return {
            **self._envelope,
            "choices": [choice],
            "usage": usage_of(completion),
            **_extensions(completion),
        }

    def _part(self, choices: list[Json]) -> Json:
        """One streamed object; OpenAI writes a null usage in each if one follows at the end."""
        usage = {"usage": None} if self._include_usage else {}
        return {**self._envelope, "choices": choices, **usage}

    def _end(self, choice: Json, completion: Completion) -> list[Json]:
        parts = [self._part([choice]) | _extensions(completion)]
        if self._include_usage:
            parts.append({**self._envelope, "choices": [], "usage": usage_of(completion)})
        return parts


class ChatForm(_Form):
    """`chat.completion` and `chat.completion.chunk`."""

    def __init__(
        self, model: str, decode_token: DecodeToken, *, stream: bool, include_usage: bool = False
    ) -> None:
        kind = "chat.completion.chunk" if stream else "chat.completion"
        super().__init__("chatcmpl", kind, model, decode_token, include_usage)

    def whole(self, chunks: Sequence[Chunk], completion: Completion) -> Json:
        """One message."""
        message = {"role": "assistant", "content": completion.text, "refusal": None}
        logprobs = [logprob for chunk in chunks for logprob in chunk.logprobs]
        choice = {
            "index": 0,
            "message": message,
            "logprobs": self._logprobs(logprobs),
            "finish_reason": completion.finish_reason,
        }
        return self._whole(choice, completion)

    def opening(self) -> Json | None:
        """Says whose turn it is."""
        return self._part([self._choice({"role": "assistant", "content": ""})])

    def piece(self, chunk: Chunk) -> Json | None:
        """More of the message."""
        if not chunk.text and not chunk.logprobs:
            return None
        choice = self._choice({"content": chunk.text}, self._logprobs(chunk.logprobs))
        return self._part([choice])

    def closing(self, completion: Completion) -> list[Json]:
        """An empty delta with the finish reason."""
        choice = self._choice({}) | {"finish_reason": completion.finish_reason}
        return self._end(choice, completion)

    @staticmethod
    def _choice(delta: Json, logprobs: Json | None = None) -> Json:
        return {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": None}

    def _logprobs(self, logprobs: Sequence[TokenLogprob]) -> Json | None:
        if not logprobs:
            return None
        content = [
            self._entry(entry.token, entry.logprob)
            | {"top_logprobs": [self._entry(token, logprob) for token, logprob in entry.top]}
            for entry in logprobs
        ]
        return {"content": content, "refusal": None}

    def _entry(self, token: int, logprob: float) -> Json:
        raw = self._decode_token(token)
        return {"token": token_text(raw), "logprob": _logprob(logprob), "bytes": list(raw)}


class TextForm(_Form):
    """`text_completion`, the same for both ways."""

    def __init__(
        self, model: str, decode_token: DecodeToken, *, include_usage: bool = False
    ) -> None:
        super().__init__("cmpl", "text_completion", model, decode_token, include_usage)
        self._characters = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._offset = 0

    def whole(self, chunks: Sequence[Chunk], completion: Completion) -> Json:
        """One text."""
        logprobs = self._logprobs([logprob for chunk in chunks for logprob in chunk.logprobs])
        choice = self._choice(completion.text, logprobs)
        return self._whole(choice | {"finish_reason": completion.finish_reason}, completion)

    def opening(self) -> Json | None:
        """Nothing: text needs no role."""
        return None

    def piece(self, chunk: Chunk) -> Json | None:
        """More of the text."""
        if not chunk.text and not chunk.logprobs:
            return None
        return self._part([self._choice(chunk.text, self._logprobs(chunk.logprobs))])

    def closing(self, completion: Completion) -> list[Json]:
        """An empty text with the finish reason."""
        return self._end(self._choice("") | {"finish_reason": completion.finish_reason}, completion)

    @staticmethod
    def _choice(text: str, logprobs: Json | None = None) -> Json:
        return {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": None}

    def _logprobs(self, logprobs: Sequence[TokenLogprob]) -> Json | None:
        """Parallel lists; offsets count characters from the start of the answer."""
        if not logprobs:
            return None
        tokens, offsets, top = [], [], []
        for entry in logprobs:
            raw = self._decode_token(entry.token)
            tokens.append(token_text(raw))
            offsets.append(self._offset)
            self._offset += len(self._characters.decode(raw))
            top.append(self._top(entry))
        return {
            "tokens": tokens,
            "token_logprobs": [_logprob(entry.logprob) for entry in logprobs],
            "top_logprobs": top,
            "text_offset": offsets,
        }

    def _top(self, entry: TokenLogprob) -> dict[str, float]:
        """The most likely tokens and the chosen one, so one more at most, as OpenAI does."""
        pairs = (*entry.top, (entry.token, entry.logprob))
        return {
            token_text(self._decode_token(token)): _logprob(logprob) for token, logprob in pairs
        }


def token_text(raw: bytes) -> str:
    r"""A token as text; bytes that are no whole characters in OpenAI's notation.

    >>> token_text(b"a"), token_text(b"\xe4\xbd")
    ('a', 'bytes:\\xe4\\xbd')
    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def usage_of(completion: Completion) -> Json:
    """Token counts in OpenAI's form; every emitted token counts, the end of the turn included."""
    num_prompt = completion.timings.num_prompt_tokens
    num_emitted = len(completion.token_ids)
    return {
        "prompt_tokens": num_prompt,
        "completion_tokens": num_emitted,
        "total_tokens": num_prompt + num_emitted,
        "prompt_tokens_details": {"cached_tokens": completion.timings.num_cached_tokens},
    }


def _extensions(completion: Completion) -> Json:
    return {
        "timings": _timings(completion.timings),
        "speculation": _speculation(completion.stats),
    }


def _timings(timings: Timings) -> Json:
    return {
        "prompt_ms": timings.prompt_ms,
        "decode_ms": timings.decode_ms,
        "time_to_first_token_ms": timings.time_to_first_token_ms,
        "decode_tokens_per_second": timings.decode_tokens_per_second,
        "speedup": timings.speedup,
    }


def _speculation(stats: SpeculationStats) -> Json:
    return {
        "target_passes": stats.target_passes,
        "proposed": stats.proposed,
        "accepted": stats.accepted,
        "acceptance_rate": stats.acceptance_rate,
        "block_efficiency": stats.block_efficiency,
    }


def _logprob(value: float) -> float:
    return max(value, _LEAST_LOGPROB) if math.isfinite(value) else _LEAST_LOGPROB
