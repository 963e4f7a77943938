"""A chat as Markdown: the versions that are shown, with models, settings, times and figures."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict

from edgespec.chats import Chat, ChatMessage, path_to

_NAMES = {"user": "You", "assistant": "Assistant", "system": "System"}


def markdown_of(chat: Chat) -> str:
    """The whole document; times are local."""
    return "\n".join(_lines(chat)).rstrip() + "\n"


def _lines(chat: Chat) -> Iterator[str]:
    yield f"# {chat.head.title or 'Chat'}\n"
    yield f"- begun: {_time(chat.head.created)}"
    for name, value in asdict(chat.settings).items():
        if value is not None and name != "system":
            yield f"- {name.replace('_', ' ')}: {value}"
    yield ""
    if chat.settings.system:
        yield f"## System\n\n{chat.settings.system}\n"
    for message in path_to(chat.messages, chat.tip):
        yield f"## {_NAMES.get(message.role, message.role)}\n\n{message.content.rstrip()}\n"
        yield f"*{', '.join(_about(message))}*\n"


def _about(message: ChatMessage) -> Iterator[str]:
    yield _time(message.created)
    if message.model:
        yield message.model
    if message.state != "done":
        yield "cut"
    for name, value in message.figures.items():
        yield f"{name.replace('_', ' ')} {value:g}"


def _time(seconds: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):  # a year that no calendar has
        return f"{seconds:.0f} s"
