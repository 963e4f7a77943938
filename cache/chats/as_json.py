"""A chat as JSON: the whole tree, every version of every message.

    {"conversation": ID, "title": T, "created": S, "updated": S, "pinned": true, "origin": "chat",
     "settings": {"temperature": 0.7}, "tip": 3,
     "messages": [{"role": "user", "text": "...", "created": S},
                  {"role": "assistant", "text": "...", "created": S, "parent": 0, "model": M,
                   "state": "cut", "figures": {"tokens": 12}, "sources": [[NAME], [12, 0]]}, ...]}

`parent` and `tip` are places in the list; the message of a place comes after its parent. What has
its usual value is left out. Earlier versions wrote a message as [ROLE, TEXT, S], each below the one
before it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, get_args

from edgespec.cache.chats.rows import (
    figures_of,
    finite,
    settings_of,
    settings_text,
    sources_of,
    sources_text,
)
from edgespec.chats import Chat, ChatHead, ChatMessage, MessageState, Origin

LATEST_S = float(1 << 40)
"""Seconds since 1970; no clock shows more."""


def chat_value(chat: Chat) -> dict[str, Any]:
    """A chat as a value for `json.dumps`; ids of messages become places."""
    places = {message.id: place for place, message in enumerate(chat.messages)}
    head = chat.head
    optional = {
        "pinned": head.is_pinned,
        "settings": json.loads(settings_text(chat.settings) or "{}"),
    }
    return {
        **{"conversation": head.id, "title": head.title, "created": head.created},
        **{"updated": head.updated, "origin": head.origin},
        **{name: value for name, value in optional.items() if value},
        "tip": places.get(chat.tip) if chat.tip is not None else None,
        "messages": [_message_value(message, places) for message in chat.messages],
    }


def chat_of(value: Mapping[str, Any]) -> Chat:
    """A chat of such a value; raises ValueError, LookupError or TypeError where it is none."""
    messages = [
        _message_of(number, each) for number, each in enumerate(_listed(value["messages"]), start=1)
    ]
    created = seconds(value["created"])
    latest = max((message.created for message in messages), default=created)
    tip, origin = value.get("tip"), value.get("origin", "chat")
    head = ChatHead(
        *(text_of(value["conversation"]), text_of(value["title"]), created),
        seconds(value.get("updated", latest)),
        len(messages),
        bool(value.get("pinned", False)),
        origin if origin in get_args(Origin) else "import",
    )
    if isinstance(tip, int) and not 0 <= tip < len(messages):
        raise ValueError(f"there is no message {tip} to be the tip")
    last = len(messages) or None
    return Chat(
        head,
        settings_of(value.get("settings", {})),
        tuple(messages),
        tip + 1 if isinstance(tip, int) else last,
    )


def text_of(value: object) -> str:
    """A text; raises ValueError for anything else."""
    if not isinstance(value, str):
        raise ValueError(f"{_short(value)} is no text")
    return value


def seconds(value: object) -> float:
    """Seconds since 1970; raises ValueError for anything else."""
    time = finite(value)
    if time is None or not 0 <= time < LATEST_S:
        raise ValueError(f"{_short(value)} is no time")
    return time


def _message_value(message: ChatMessage, places: Mapping[int, int]) -> dict[str, Any]:
    sources = sources_text(message.sources)
    optional = {
        "parent": places.get(message.parent) if message.parent is not None else None,
        "state": message.state if message.state != "done" else None,
        "model": message.model,
        "figures": dict(message.figures) or None,
        "sources": json.loads(sources) if sources else None,
    }
    return {
        **{"role": message.role, "text": message.content, "created": message.created},
        **{name: value for name, value in optional.items() if value is not None},
    }


def _message_of(number: int, value: object) -> ChatMessage:
    """The message with this number, whose place is one less."""
    try:
        if isinstance(value, list):
            role, text, created = value
            before = number - 1 or None
            return ChatMessage(number, before, text_of(role), text_of(text), seconds(created))
        if not isinstance(value, dict):
            raise ValueError("it is no object")
        place, model = value.get("parent"), value.get("model")
        if place is not None and not (isinstance(place, int) and 0 <= place < number - 1):
            raise ValueError(f"its parent {_short(place)} does not come before it")
        state = value.get("state", "done")
        return ChatMessage(
            id=number,
            parent=None if place is None else place + 1,
            role=text_of(value["role"]),
            content=text_of(value["text"]),
            created=seconds(value["created"]),
            state=state if state in get_args(MessageState) and state != "open" else "cut",
            model=model if isinstance(model, str) else None,
            sources=sources_of(value.get("sources", ())),
            figures=figures_of(value.get("figures", {})),
        )
    except KeyError as error:
        raise ValueError(f"message {number} has no {error.args[0]}") from error
    except ValueError as error:
        raise ValueError(f"message {number}: {error}") from error


def _listed(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("its messages are no list")
    return value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:39] + "…"
