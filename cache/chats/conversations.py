"""Conversations of the server's clients, written down from what each request repeats.

A request that changes what was said, or asks again, branches off: its messages are versions beside
those that are there (`edgespec.chats`).
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgespec.cache.chats.rows import add_chat, add_message, settings_of, speak
from edgespec.chats import ChatHead, ChatMessage, ChatSettings


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message that is to be kept."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Turn:
    """A message that is kept; `before` is the place in the list of the one that it follows."""

    role: str
    content: str
    before: int | None


class Conversations:
    """Writes what was said; every method raises sqlite3.Error, and then changed nothing."""

    def __init__(
        self, connection: sqlite3.Connection, clock: Callable[[], float] = time.time
    ) -> None:
        """`connection` stays the caller's to close."""
        self._connection = connection
        self._clock = clock

    def follow(self, conversation: str, title: str, said: Sequence[NewMessage]) -> None:
        """Add what is not there yet of `said`, all that was said, inside the caller's transaction.

        Begins the conversation if need be. Space around a text does not count: clients may strip
        what they repeat.
        """
        now = self._clock()
        head = ChatHead(conversation, title, now, now, 0, origin="serve")
        add_chat(self._connection, head, ChatSettings())
        known = {
            (parent, role, content.strip()): number
            for number, parent, role, content in self._connection.execute(
                "SELECT id, parent, role, content FROM messages WHERE conversation = ?",
                (conversation,),
            )
        }
        tip: int | None = None
        for turn in said:
            number = known.get((tip, turn.role, turn.content.strip()))
            if number is None:
                message = ChatMessage(0, tip, turn.role, turn.content, now)
                number = add_message(self._connection, conversation, message)
            tip = number
        if tip is not None:
            speak(self._connection, conversation, tip, now)

    def turns(self, conversation: str) -> list[Turn]:
        """Every version of every message of a conversation, in the order in which they came.

        What it is set to tell the model comes first, as a system message.
        """
        rows = self._connection.execute(
            "SELECT id, parent, role, content FROM messages WHERE conversation = ? ORDER BY id",
            (conversation,),
        ).fetchall()
        set_to = self._connection.execute(
            "SELECT settings FROM conversations WHERE id = ?", (conversation,)
        ).fetchone()
        system = settings_of(set_to[0]).system if set_to else None
        first = [Turn("system", system, None)] if system else []
        root = 0 if first else None
        places = {number: place for place, (number, *_) in enumerate(rows, start=len(first))}
        return first + [
            Turn(role, content, places.get(parent, root) if parent is not None else root)
            for _, parent, role, content in rows
        ]
