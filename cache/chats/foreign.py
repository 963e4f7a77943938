"""Chats of other programs: items of ChatGPT's `conversations.json` and of Open WebUI's export.

Both are trees of messages by id. What is no text (images, calls of tools and what they gave)
becomes a short note in brackets; what a program did between a question and the end of its answer
becomes one answer. Of what is missing nothing is made up but times, which then are those of the
chat. Whatever else is wrong raises ValueError.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgespec.cache.chats.as_json import LATEST_S, text_of
from edgespec.cache.chats.rows import finite, title_of
from edgespec.chats import Chat, ChatHead, ChatMessage, ChatSettings

_ROLES = {"user": "user", "assistant": "assistant", "tool": "assistant", "system": "system"}


@dataclass(slots=True)
class _Node:
    """A message of a foreign tree; no text is one that is not shown."""

    parent: str | None
    children: list[str]
    role: str = ""
    text: str = ""
    created: float | None = None
    model: str | None = None


@dataclass(slots=True)
class _Built:
    """What of a tree is built so far; `places` has, by node, the message that stands for it."""

    created: float
    messages: list[ChatMessage] = field(default_factory=list)
    places: dict[str, int | None] = field(default_factory=dict)
    system: str | None = None


def chat_of_chatgpt(item: Mapping[str, Any]) -> Chat:
    """A chat of an item with `mapping`: nodes with `message`, `parent`, `children`."""
    nodes = {}
    for name, value in _object(item["mapping"], "mapping").items():
        node = _object(value, f"node {name!r}")
        nodes[name] = _Node(_name(node.get("parent")), _names(node.get("children")))
        message = node.get("message")
        if message is not None:
            _fill_of_chatgpt(nodes[name], _object(message, f"message {name!r}"))
    identity = item.get("conversation_id") or item.get("id")
    return _chat("chatgpt", item, identity, nodes, _name(item.get("current_node")))


def chat_of_open_webui(item: Mapping[str, Any]) -> Chat:
    """A chat of an item with `chat.history.messages`, or with a plain list `chat.messages`."""
    chat = _object(item["chat"], "chat")
    history = _object(chat.get("history") or {}, "history")
    said = history.get("messages") or {}
    current = _name(history.get("currentId"))
    if not said:
        listed = chat.get("messages") or []
        if not isinstance(listed, list):
            raise ValueError("its messages are no list")
        said, current = _in_a_row(listed), str(len(listed) - 1)
    nodes = {}
    for name, value in _object(said, "messages").items():
        message = _object(value, f"message {name!r}")
        node = _Node(_name(message.get("parentId")), _names(message.get("childrenIds")))
        node.role, node.created = _role(message.get("role"), name), _time(message.get("timestamp"))
        node.text = _content(message.get("content"))
        for file in message.get("files") or []:
            kind = file.get("type") if isinstance(file, dict) else None
            node.text += f"\n\n[{'image' if kind == 'image' else 'file'}]"
        node.text = node.text.strip()
        node.model = _name(message.get("model"))
        nodes[name] = node
    about = {"title": item.get("title") or chat.get("title"), "create_time": item.get("created_at")}
    about["update_time"] = item.get("updated_at")
    return _chat("open-webui", about, item.get("id"), nodes, current)


def _fill_of_chatgpt(node: _Node, message: Mapping[str, Any]) -> None:
    author = _object(message.get("author") or {}, "author")
    content = _object(message.get("content") or {}, "content")
    about = message.get("metadata")
    about = about if isinstance(about, dict) else {}
    node.role = _role(author.get("role"), str(message.get("id")))
    node.created = _time(message.get("create_time"))
    node.model = _name(about.get("model_slug"))
    if about.get("is_visually_hidden_from_conversation"):
        return
    kind = content.get("content_type")
    if author.get("role") == "tool":
        node.text = f"[tool {author.get('name') or 'unknown'}]"
    elif kind in ("text", "multimodal_text"):
        node.text = _content(content.get("parts"))
    elif kind == "code" and message.get("recipient") in (None, "all"):
        node.text = _content(content.get("text"))
    elif kind == "code":
        node.text = f"[call of {message.get('recipient')}]"
    elif node.role != "system":
        node.text = f"[{str(kind).replace('_', ' ')}]"


def _content(value: object) -> str:
    """Text of a text, or of a list of texts and other things, which become notes."""
    if isinstance(value, str):
        return value
    pieces = []
    for part in value if isinstance(value, list) else []:
        if isinstance(part, str):
            pieces.append(part)
        elif isinstance(part, dict) and isinstance(part.get("text"), str):
            pieces.append(part["text"])
        elif isinstance(part, dict):
            kind = str(part.get("content_type") or part.get("type") or "attachment")
            pieces.append("[image]" if "image" in kind else f"[{kind.replace('_', ' ')}]")
    return "\n\n".join(piece for piece in pieces if piece)


def _chat(
    program: str,
    about: Mapping[str, Any],
    identity: object,
    nodes: Mapping[str, _Node],
    current: str | None,
) -> Chat:
    created = _time(about.get("create_time"))
    times = [node.created for node in nodes.values() if node.created is not None]
    created = created if created is not None else min(times, default=0.0)
    built = _Built(created)
    for name in _parents_first(nodes):
        _place(built, name, nodes)
    messages = tuple(built.messages)
    asked = next((each.content for each in messages if each.role == "user"), "")
    title = about.get("title")
    title = title_of(title if isinstance(title, str) and title.strip() else asked)
    name = text_of(identity) if identity else f"{title} {created!r} {sorted(nodes)[:1]}"
    updated = _time(about.get("update_time"))
    head = ChatHead(
        *(hashlib.sha256(f"{program} {name}".encode(errors="replace")).hexdigest()[:32], title),
        *(created, updated if updated is not None else max(times, default=created)),
        len(messages),
        origin="import",
    )
    tip = built.places.get(current) if current is not None else None
    last = messages[-1].id if messages else None
    return Chat(head, ChatSettings(system=built.system), messages, tip or last)


def _parents_first(nodes: Mapping[str, _Node]) -> list[str]:
    """The names of all nodes, each after its parent, versions in the order of `children`.

    Nodes without a parent that is there, and one of each circle, are roots.
    """
    order: dict[str, None] = {}
    roots = [name for name, node in nodes.items() if node.parent not in nodes]
    below: dict[str, list[str]] = {}
    for name, node in nodes.items():
        if node.parent in nodes and node.parent is not None:
            below.setdefault(node.parent, []).append(name)
    for start in [*roots, *nodes]:
        waiting = [start]
        while waiting:
            name = waiting.pop()
            if name in order:
                continue
            order[name] = None
            places = {child: place for place, child in enumerate(nodes[name].children)}
            children = sorted(below.get(name, []), key=lambda each: places.get(each, len(places)))
            waiting.extend(reversed(children))
    return list(order)


def _place(built: _Built, name: str, nodes: Mapping[str, _Node]) -> None:
    """Add the message of a node, whose parent was placed before unless it is in a circle."""
    node = nodes[name]
    before = built.places.get(node.parent) if node.parent is not None else None
    if node.role == "system" and node.text and before is None and built.system is None:
        built.system = node.text
    elif node.text and node.role != "system":
        last = built.messages[before - 1] if before is not None else None
        is_more = last is not None and node.role == last.role == "assistant"
        if is_more and last is not None and len(_siblings(nodes, node)) == 1:
            built.messages[last.id - 1] = _joined(last, node)
        else:
            number = len(built.messages) + 1
            created = node.created if node.created is not None else built.created
            message = ChatMessage(number, before, node.role, node.text, created, model=node.model)
            built.messages.append(message)
            before = number
    built.places[name] = before


def _siblings(nodes: Mapping[str, _Node], node: _Node) -> list[str]:
    return nodes[node.parent].children if node.parent in nodes and node.parent else []


def _joined(answer: ChatMessage, node: _Node) -> ChatMessage:
    return ChatMessage(
        *(answer.id, answer.parent, answer.role, f"{answer.content}\n\n{node.text}"),
        answer.created,
        model=node.model or answer.model,
    )


def _in_a_row(messages: list[Any]) -> dict[str, Any]:
    """A list of messages as a tree without branches."""
    return {
        str(place): {
            **_object(message, f"message {place}"),
            "parentId": str(place - 1) if place else None,
            "childrenIds": [str(place + 1)],
        }
        for place, message in enumerate(messages)
    }


def _object(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"its {what} is no object")
    return value


def _name(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _names(value: object) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _role(value: object, message: str) -> str:
    role = _ROLES.get(value) if isinstance(value, str) else None
    if role is None:
        raise ValueError(f"message {message!r} is of {value!r}, not of user or assistant")
    return role


def _time(value: object) -> float | None:
    """Seconds since 1970; some versions write thousandths or smaller parts of them."""
    seconds = finite(value)
    if seconds is None:
        return None
    while seconds > 1e11:
        seconds /= 1e3
    return seconds if 0 <= seconds < LATEST_S else None
