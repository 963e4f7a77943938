"""Chats in the database: trees of messages (`edgespec.chats`), each change in one transaction.

A message is below the one it answers; ids grow downwards and tell the order in which messages came.
An answer that is open names the process that writes it (`writers`): once that is gone, it is cut.
"""

from __future__ import annotations

import contextlib
import sqlite3
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgespec.cache.chats.chat_rows import ChatRows, gone
from edgespec.cache.chats.rows import (
    HEAD,
    add_chat,
    add_message,
    figures_text,
    head_of,
    settings_of,
    settings_text,
    sources_text,
    speak,
    storable,
    title_of,
)
from edgespec.cache.chats.search import search
from edgespec.cache.chats.writers import is_writing
from edgespec.chats import (
    Begun,
    Chat,
    ChatHead,
    ChatHit,
    ChatMessage,
    ChatSettings,
    MessageState,
    Origin,
    path_to,
)
from edgespec.errors import StorageError

_DEFAULTS = ChatSettings()
_NO_FIGURES: Mapping[str, float] = {}
_LATEST = 50_000
"""Messages among which `questions` looks."""

_RECENT = (
    f"SELECT {HEAD} FROM conversations WHERE deleted IS NULL"
    " ORDER BY pinned DESC, spoken DESC, number DESC LIMIT ? OFFSET ?"
)
_QUESTIONS = (
    "SELECT content FROM messages JOIN conversations ON conversations.id = conversation"
    " WHERE messages.id > (SELECT max(id) FROM messages) - ? AND role = 'user'"
    " AND origin = 'chat' AND deleted IS NULL ORDER BY messages.id DESC LIMIT ?"
)


class ChatStore(ChatRows):
    """Implements `edgespec.chats.History` over a connection of its own."""

    # What is said

    def begin(
        self,
        chat: str | None,
        parent: int | None,
        question: str,
        settings: ChatSettings = _DEFAULTS,
        origin: Origin = "chat",
    ) -> Begun:
        """Write a question and its open answer down; in a new chat, with these settings, if None.

        In a chat that is deleted, it is restored.
        """
        with self._writing():
            now = self._clock()
            if chat is None:
                chat = uuid.uuid4().hex
                head = ChatHead(chat, title_of(question), now, now, 0, origin=origin)
                add_chat(self._connection, head, settings)
            elif parent is None:
                self._require(chat)
            elif self._chat_of(parent) != chat:
                raise gone("message", parent)
            asked = add_message(
                self._connection, chat, ChatMessage(0, parent, "user", question, now)
            )
            return Begun(chat, asked, self._open_answer(chat, asked, now))

    def another(self, question: int) -> int:
        """Open another answer to a question; it becomes the tip."""
        with self._writing():
            return self._open_answer(self._chat_of(question), question, self._clock())

    def reopen(self, answer: int) -> None:
        """An answer that was cut goes on; StorageError while another process writes it."""
        with self._writing():
            writer = self._value("SELECT writer FROM messages WHERE id = ?", answer)
            if writer not in (None, self._writer) and is_writing(writer):
                raise StorageError(
                    "another EdgeSpec writes this answer", "wait for its end, or ask again"
                )
            self._change(
                "UPDATE messages SET state = 'open', writer = ? WHERE id = ?",
                (self._writer, answer),
                "message",
            )

    def partial(self, answer: int, text: str, sources: Sequence[tuple[int, str]] = ()) -> None:
        """What there is of an open answer; nothing if it is not open any more."""
        with self._writing():
            self._connection.execute(
                "UPDATE messages SET content = ?, sources = ? WHERE id = ? AND state = 'open'",
                (storable(text), sources_text(sources), answer),
            )

    def finish(
        self,
        answer: int,
        text: str,
        state: MessageState,
        model: str | None = None,
        figures: Mapping[str, float] = _NO_FIGURES,
        sources: Sequence[tuple[int, str]] = (),
    ) -> None:
        """An open answer ended."""
        texts = storable(text), model and storable(model)
        with self._writing():
            self._change(
                "UPDATE messages SET content = ?, model = ?, state = ?, figures = ?, sources = ?,"
                " writer = NULL WHERE id = ?",
                (*texts, state, figures_text(figures), sources_text(sources), answer),
                "message",
            )
            self._connection.execute(
                "UPDATE conversations SET updated = ? WHERE id = ?",
                (self._clock(), self._chat_of(answer)),
            )
        with contextlib.suppress(sqlite3.Error):  # the log is copied back after the answer
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def withdraw(self, question: int) -> None:
        """Take a question out again if no answer of it says anything."""
        with self._writing():
            chat = self._chat_of(question)
            parent = self._value("SELECT parent FROM messages WHERE id = ?", question)
            whole = {message.id: message for message in self._messages(chat)}
            answers = [each.id for each in whole.values() if each.parent == question]
            if any(
                each.parent in answers
                or (each.parent == question and (each.content or each.state == "done"))
                for each in whole.values()
            ):
                return
            for number in (question, *answers):
                self._connection.execute("DELETE FROM messages WHERE id = ?", (number,))
                del whole[number]
            if not whole:
                self._connection.execute("DELETE FROM conversations WHERE id = ?", (chat,))
                return
            newest = {each.parent: each.id for each in whole.values()}
            tip = parent
            while tip in newest:
                tip = newest[tip]
            self._change("UPDATE conversations SET tip = ? WHERE id = ?", (tip, chat), "chat")

    # What was said

    def recent(self, limit: int = 50, offset: int = 0) -> list[ChatHead]:
        """Chats, pinned ones first, then the one spoken in last first."""
        with self._told():
            rows = self._connection.execute(_RECENT, (limit, offset))
            return [head_of(row) for row in rows]

    def search(self, text: str, limit: int = 50) -> list[ChatHit]:
        """Titles and messages with every word of `text`, the last one as a beginning."""
        with self._told():
            return search(self._connection, text, limit)

    def load(self, chat: str) -> Chat | None:
        """A chat with all its versions; None if there is none, or it is deleted.

        A message that cannot be read is left out. Open answers whose writer is gone are cut.
        """
        with self._told():
            row = self._connection.execute(
                f"SELECT {HEAD}, settings, tip FROM conversations WHERE id = ? AND deleted IS NULL",
                (chat,),
            ).fetchone()
            if row is None:
                return None
            *head, settings, tip = row
            messages = tuple(self._messages(chat))
        if tip not in {message.id for message in messages}:
            tip = messages[-1].id if messages else None
        return Chat(head_of(head), settings_of(settings), messages, tip)

    def questions(self, limit: int = 200) -> list[str]:
        """What was asked lately in chats, the oldest first."""
        with self._told():
            rows = self._connection.execute(_QUESTIONS, (_LATEST, limit)).fetchall()
        return [str(text) for (text,) in reversed(rows)]

    def named(self, prefix: str) -> list[str]:
        """Ids of chats that begin with `prefix`, at most two of them."""
        with self._told():
            rows = self._connection.execute(
                "SELECT id FROM conversations WHERE substr(id, 1, ?) = ? AND deleted IS NULL"
                " ORDER BY id = ? DESC LIMIT 2",
                (len(prefix), prefix, prefix),
            ).fetchall()
        ids = [str(name) for (name,) in rows]
        return ids[:1] if prefix in ids else ids

    def last(self) -> str | None:
        """The chat that was spoken in last, those of the server's clients left out."""
        with self._told():
            row = self._connection.execute(
                "SELECT id FROM conversations WHERE deleted IS NULL AND origin <> 'serve'"
                " ORDER BY spoken DESC, number DESC LIMIT 1"
            ).fetchone()
        return str(row[0]) if row else None

    # What a chat is

    def choose(self, chat: str, tip: int) -> None:
        """Show the versions on the way to `tip` from now on."""
        with self._writing():
            if self._chat_of(tip) != chat:
                raise gone("message", tip)
            self._change("UPDATE conversations SET tip = ? WHERE id = ?", (tip, chat), "chat")

    def set(self, chat: str, settings: ChatSettings) -> None:
        """Change what a chat is set to."""
        values = (settings_text(settings), chat)
        with self._writing():
            self._change("UPDATE conversations SET settings = ? WHERE id = ?", values, "chat")

    def rename(self, chat: str, title: str) -> None:
        """Give a chat another title."""
        with self._writing():
            self._change(
                "UPDATE conversations SET title = ? WHERE id = ?", (storable(title), chat), "chat"
            )

    def pin(self, chat: str, is_pinned: bool) -> None:
        """Keep a chat at the head of the list, or no longer."""
        values = (int(is_pinned), chat)
        with self._writing():
            self._change("UPDATE conversations SET pinned = ? WHERE id = ?", values, "chat")

    def delete(self, chat: str) -> None:
        """Hide a chat; it is purged some days later."""
        values = (self._clock(), chat)
        with self._writing():
            self._change("UPDATE conversations SET deleted = ? WHERE id = ?", values, "chat")
        self.on_delete(chat)

    def restore(self, chat: str) -> None:
        """Take a `delete` back."""
        with self._writing():
            self._change("UPDATE conversations SET deleted = NULL WHERE id = ?", (chat,), "chat")

    def copy(self, chat: str, tip: int) -> str:
        """The conversation up to `tip`, that version alone, as a new chat; its id."""
        with self._writing():
            whole = self.load(chat)
            if whole is None:
                raise gone("chat", chat)
            path = path_to(whole.messages, tip)
            if not path:
                raise gone("message", tip)
            now, name = self._clock(), uuid.uuid4().hex
            head = ChatHead(name, whole.head.title, now, now, len(path))
            add_chat(self._connection, head, whole.settings)
            last: int | None = None
            for message in path:
                state = "cut" if message.state == "open" else message.state
                copied = replace(message, parent=last, state=state)
                last = add_message(self._connection, name, copied)
            assert last is not None
            speak(self._connection, name, last, now)
            return name

    def close_the_cut(self) -> None:
        """Cut the open answers of processes that are gone, so that search finds them."""
        with self._writing():
            rows = self._connection.execute(
                "SELECT id, writer FROM messages WHERE state = 'open'"
            ).fetchall()
            for number, writer in rows:
                if not is_writing(writer):
                    self._connection.execute(
                        "UPDATE messages SET state = 'cut', writer = NULL WHERE id = ?", (number,)
                    )
