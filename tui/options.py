"""What goes into the chat app and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edgespec.types import SamplingParams


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """Settings of one chat.

    `max_tokens` None lets each answer run until the context is full. `initial_message` is sent as
    soon as the model is ready. `keys` is a file of the user's own keys, which need not exist.
    """

    system: str | None = None
    sampling: SamplingParams = field(default_factory=SamplingParams)
    max_tokens: int | None = None
    initial_message: str | None = None
    keys: Path | None = None


@dataclass(frozen=True, slots=True)
class ChatOutcome:
    """How the app ended: the command's exit status and, on failure, one line for stderr."""

    exit_code: int = 0
    message: str | None = None
