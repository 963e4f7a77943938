"""What goes into the chat app and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgespec.types import SamplingParams


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """Settings of one chat.

    `max_tokens` None lets each answer run until the context is full. `initial_message` is sent as
    soon as the model is ready. `chat` is the id of a kept conversation to go on with; `incognito`
    begins with one of which nothing is kept. `pull_when_loaded` is a model that is fetched
    meanwhile. `inline` chats below the shell's prompt instead of on a screen of its own. `model`
    and `drafter` are loaded first; where these `are_named`, going on with `chat` loads no others.
    """

    system: str | None = None
    sampling: SamplingParams = field(default_factory=SamplingParams)
    max_tokens: int | None = None
    initial_message: str | None = None
    chat: str | None = None
    incognito: bool = False
    pull_when_loaded: str | None = None
    inline: bool = False
    model: str = ""
    drafter: str = "auto"
    are_named: bool = False


@dataclass(frozen=True, slots=True)
class ChatOutcome:
    """How the app ended: the command's exit status and, on failure, one line for stderr.

    `said` is the last turn as Markdown where nothing else of an inline chat would be left to read.
    """

    exit_code: int = 0
    message: str | None = None
    said: str = ""
