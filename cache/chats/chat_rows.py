"""What every change and every look at stored chats is made of: transactions, errors, rows."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

from edgespec.cache.chats.rows import MESSAGE, add_message, linked, message_of, speak
from edgespec.cache.chats.writers import is_writing, this_writer
from edgespec.cache.database import DAMAGE, is_damage, storage_error, transaction
from edgespec.chats import ChatMessage
from edgespec.errors import StorageError


class ChatRows:
    """The base of `edgespec.cache.chats.store.ChatStore`."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`connection` is closed with this; `path` is named in errors; `clock` only dates.

        `on_delete` may be set to hear the id of each chat that is deleted.
        """
        self.on_delete: Callable[[str], None] = lambda _chat: None
        connection.text_factory = lambda text: text.decode("utf-8", "replace")
        self._connection = connection
        self._path = path
        self._clock = clock
        self._writer = this_writer()

    @property
    def is_in_memory(self) -> bool:
        """Whether nothing is left of it when it is closed."""
        return self._path is None

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except DAMAGE as error:
            raise storage_error(error, self._path) from error

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        with self._told(), transaction(self._connection):
            yield

    def _open_answer(self, chat: str, question: int, now: float) -> int:
        opened = ChatMessage(0, question, "assistant", "", now, "open")
        answer = add_message(self._connection, chat, opened, self._writer)
        speak(self._connection, chat, answer, now)
        return answer

    def _messages(self, chat: str) -> list[ChatMessage]:
        """The messages of a chat, those left out that cannot be read."""
        ids = self._connection.execute(
            "SELECT id FROM messages WHERE conversation = ? ORDER BY id", (chat,)
        ).fetchall()
        found = []
        for number in ids:
            try:
                *row, writer = self._connection.execute(
                    f"SELECT {MESSAGE}, writer FROM messages WHERE id = ?", number
                ).fetchone()
            except DAMAGE as error:
                if not is_damage(error):
                    raise
                continue
            message = message_of(row)
            if message.state == "open" and writer != self._writer and not is_writing(writer):
                message = replace(message, state="cut")
            found.append(message)
        return linked(found)

    def _value(self, statement: str, number: int) -> object:
        row = self._connection.execute(statement, (number,)).fetchone()
        return row[0] if row else None

    def _chat_of(self, message: int) -> str:
        chat = self._value("SELECT conversation FROM messages WHERE id = ?", message)
        if chat is None:
            raise gone("message", message)
        return str(chat)

    def _require(self, chat: str) -> None:
        found = self._connection.execute("SELECT 1 FROM conversations WHERE id = ?", (chat,))
        if found.fetchone() is None:
            raise gone("chat", chat)

    def _change(self, statement: str, values: Sequence[object], what: str) -> None:
        """Change the one row that the last of `values` names."""
        if not self._connection.execute(statement, tuple(values)).rowcount:
            raise gone(what, values[-1])


def gone(what: str, name: object) -> StorageError:
    """The error of an id that is not there."""
    return StorageError(f"there is no {what} {name!r}", "it may have been deleted elsewhere")
