"""Chats as rows: values to columns and back; whatever a damaged column holds becomes its default.

settings   {"system": "...", "temperature": 0.7}          only what is set
figures    {"tokens": 12, "decode_ms": 210.5}
sources    [["target", "context"], [12, 0, 3, 1]]         names, then lengths and places of names
"""

from __future__ import annotations

import json
import sqlite3
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any, get_args

from edgespec.chats import ChatHead, ChatMessage, ChatSettings, MessageState, Origin

MESSAGE = "id, parent, role, content, created, state, model, figures, sources"
"""The columns that `message_of` reads."""

HEAD = "id, title, created, updated, num_messages, pinned, origin"
"""The columns that `head_of` reads."""

_ADD_MESSAGE = (
    "INSERT INTO messages (conversation, parent, role, content, created, state, model, figures,"
    " sources, writer) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_ADD_CHAT = (
    "INSERT OR IGNORE INTO conversations (id, title, created, updated, pinned, origin, settings,"
    " deleted) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_SETTING_TYPES = {
    **dict.fromkeys(("system", "model", "drafter"), (str,)),
    **dict.fromkeys(("top_k", "seed", "max_tokens"), (int,)),
    **dict.fromkeys(("temperature", "top_p", "min_p", "repeat_penalty"), (int, float)),
}
_TITLE_LETTERS = 80
_LARGEST = 1 << 62
"""What SQLite and a float hold; infinity and what is no number lie outside."""


def storable(text: str) -> str:
    """Text that SQLite takes: lone surrogates, which no file can hold, become escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def title_of(question: str) -> str:
    """The first words of a question.

    >>> title_of("  What is\\n rain? ")
    'What is rain?'
    """
    words = " ".join(storable(question[: 8 * _TITLE_LETTERS]).split())
    return words if len(words) <= _TITLE_LETTERS else words[: _TITLE_LETTERS - 1] + "…"


def add_message(
    connection: sqlite3.Connection, chat: str, message: ChatMessage, writer: str | None = None
) -> int:
    """Add a message, whose own id does not count, inside the caller's transaction; its id."""
    values = (
        *(chat, message.parent, storable(message.role), storable(message.content)),
        *(message.created, message.state, message.model and storable(message.model)),
        *(figures_text(message.figures), sources_text(message.sources), writer),
    )
    number = connection.execute(_ADD_MESSAGE, values).lastrowid
    assert number is not None
    return number


def add_chat(
    connection: sqlite3.Connection,
    head: ChatHead,
    settings: ChatSettings,
    deleted: float | None = None,
) -> bool:
    """Add a conversation without messages; False, and nothing is changed, if it is here."""
    values = (
        *(head.id, storable(head.title), head.created, head.updated, int(head.is_pinned)),
        *(head.origin, settings_text(settings), deleted),
    )
    return connection.execute(_ADD_CHAT, values).rowcount > 0


def speak(connection: sqlite3.Connection, chat: str, tip: int, now: float) -> None:
    """Something is said in a conversation: it comes before all others, whatever the clock says."""
    connection.execute(
        "UPDATE conversations SET tip = ?, updated = ?, deleted = NULL, spoken ="
        " max(?, coalesce((SELECT max(spoken) FROM conversations), 0) + 1e-6) WHERE id = ?",
        (tip, now, now, chat),
    )


def head_of(row: Sequence[Any]) -> ChatHead:
    """A row of HEAD as a value."""
    chat, title, created, updated, num_messages, pinned, origin = row
    known: Origin = origin if origin in get_args(Origin) else "chat"
    return ChatHead(
        *(str(chat), _text(title), _time(created), _time(updated)),
        num_messages=num_messages if isinstance(num_messages, int) else 0,
        is_pinned=bool(pinned),
        origin=known,
    )


def message_of(row: Sequence[Any]) -> ChatMessage:
    """A row of MESSAGE as a value."""
    number, parent, role, content, created, state, model, figures, sources = row
    return ChatMessage(
        id=number,
        parent=parent if isinstance(parent, int) else None,
        role=_text(role),
        content=_text(content),
        created=_time(created),
        state=state if state in get_args(MessageState) else "cut",
        model=model if isinstance(model, str) else None,
        sources=sources_of(sources),
        figures=figures_of(figures),
    )


def linked(messages: Iterable[ChatMessage]) -> list[ChatMessage]:
    """Messages in order of their ids, each below one that is there.

    What followed one that is lost, or follows itself, follows the one before it.

    >>> lost = [ChatMessage(1, None, "user", "", 0.0), ChatMessage(3, 2, "user", "", 0.0)]
    >>> [message.parent for message in linked(lost)]
    [None, 1]
    """
    ids: list[int] = []
    whole = []
    for message in sorted(messages, key=lambda each: each.id):
        if message.parent is not None:
            place = bisect_left(ids, message.parent)
            if place == len(ids) or ids[place] != message.parent:
                message = replace(message, parent=ids[place - 1] if place else None)
        ids.append(message.id)
        whole.append(message)
    return whole


def settings_text(settings: ChatSettings) -> str | None:
    """Settings as JSON; None for the defaults."""
    values = {name: value for name, value in asdict(settings).items() if value is not None}
    return json.dumps(values, sort_keys=True) if values else None


def settings_of(text: object) -> ChatSettings:
    """Settings of JSON text, or of what it stands for; what is no setting is left out.

    >>> settings_of('{"seed": 3, "top_k": "many", "colour": 1}').seed
    3
    """
    values = _mapping(text)
    known = {field.name for field in fields(ChatSettings)}
    return ChatSettings(
        **{
            name: value
            for name, value in values.items()
            if name in known and _is_setting(value, _SETTING_TYPES[name])
        }
    )


def figures_text(figures: Mapping[str, float]) -> str | None:
    """Figures as JSON; None for none, and without what is no number."""
    values = {storable(name): value for name, value in figures.items() if finite(value) is not None}
    return json.dumps(values) if values else None


def figures_of(text: object) -> dict[str, float]:
    """Figures of JSON text, or of what it stands for."""
    return {name: value for name, value in _mapping(text).items() if finite(value) is not None}


def sources_text(sources: Sequence[tuple[int, str]]) -> str | None:
    """Sources as JSON, those beside each other that are one made one; None for none.

    >>> sources_text([(2, "target"), (1, "target"), (3, "context")])
    '[["target","context"],[3,0,3,1]]'
    """
    names: dict[str, int] = {}
    runs: list[int] = []
    for length, name in sources:
        place = names.setdefault(storable(name), len(names))
        if runs and runs[-1] == place:
            runs[-2] += length
        else:
            runs += [length, place]
    return json.dumps([list(names), runs], separators=(",", ":")) if runs else None


def sources_of(text: object) -> tuple[tuple[int, str], ...]:
    """Sources of JSON text, or of what it stands for; none if it is damaged."""
    try:
        names, runs = json.loads(text) if isinstance(text, str) else text  # type: ignore[misc]
        pairs = zip(runs[::2], runs[1::2], strict=True)
        return tuple((int(length), str(names[place])) for length, place in pairs if length > 0)
    except (ValueError, TypeError, LookupError, RecursionError):
        return ()


def finite(value: object) -> float | None:
    """A number that is one, and that a float holds; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if -_LARGEST < value < _LARGEST else None


def _mapping(text: object) -> dict[str, Any]:
    try:
        value = json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _is_setting(value: object, kinds: tuple[type, ...]) -> bool:
    if isinstance(value, str):
        return str in kinds
    return isinstance(value, kinds) and finite(value) is not None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _time(value: object) -> float:
    return finite(value) or 0.0
