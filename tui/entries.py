"""From what is kept of a message to what the transcript shows of it."""

from __future__ import annotations

import time
from collections.abc import Sequence

from edgespec.chats import ChatMessage
from edgespec.tui.transcript import Entry
from edgespec.types import Chunk, Span


def entry_of(message: ChatMessage, versions: Sequence[int]) -> Entry:
    """What is shown of a message; `versions` are the ids that stand beside each other."""
    place = (versions.index(message.id) + 1, len(versions)) if len(versions) > 1 else None
    is_question = message.role == "user"
    return Entry(
        str(message.id),
        "question" if is_question else "answer",
        message.content,
        tuple(Span(length, source) for length, source in message.sources),
        message.state,
        place,
        "" if is_question else label_of(message),
    )


def label_of(message: ChatMessage) -> str:
    """The quiet line below an answer: who said it, and how fast.

    >>> label_of(ChatMessage(1, None, "assistant", "Hi", 0.0, "cut", "qwen"))
    'qwen · cut off · /continue goes on'
    """
    parts = [message.model] if message.model else []
    rate = message.figures.get("tokens_per_second", 0.0)
    if rate:
        parts.append(f"{rate:.1f} tok/s")
    if message.figures.get("plain"):
        parts.append("without speculation")
    if message.state == "cut":
        parts.append("cut off · /continue goes on")
    return " · ".join(parts)


def progress_line(chunk: Chunk, started_at: float) -> str:
    """How far reading the prompt is, and the time left where that can be told."""
    progress = chunk.progress
    assert progress is not None
    line = f"reading {progress.num_read:,} of {progress.num_prompt_tokens:,} tokens"
    num_new = progress.num_read - progress.num_cached
    left = progress.num_prompt_tokens - progress.num_read
    if num_new > 0 and left > 0:
        seconds = (time.monotonic() - started_at) / num_new * left
        line += f" · {seconds:.0f} s left" if seconds >= 1 else ""
    return line
