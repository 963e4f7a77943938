"""Messages by what is in them: every word, the last one as a beginning; the latest first.

Before them come chats of which only the title has these words. Words are letters and digits,
whatever their case and accents. A text in a script without spaces is found by any three letters of
it, and by fewer among the latest messages.
"""

from __future__ import annotations

import re
import sqlite3
import unicodedata
from collections.abc import Collection, Sequence
from typing import Any

from edgespec.cache.schema import UNSPACED
from edgespec.chats import ChatHit

INDEXES = ("messages_fts", "messages_trigram")
"""By words, and by three letters of scripts without spaces."""

TITLE = "title"
"""The role of a hit that is a title; its message is the first one."""

_ON, _OFF = "\x01", "\x02"
_MOST_LETTERS = 1000
"""Of a text that is searched for."""

_LATEST = 20_000
"""Messages that are looked through where no index helps."""

_AROUND = 24
"""Letters shown on either side of what was found without an index."""

_FOUND = (
    "SELECT messages.conversation, title, messages.id, role, messages.created, {snippet}"
    " FROM {found}"
    " JOIN conversations ON conversations.id = conversation"
    " WHERE {condition} AND deleted IS NULL ORDER BY {number} DESC LIMIT ?"
)
_TITLES = "SELECT id, title FROM conversations WHERE deleted IS NULL ORDER BY number DESC LIMIT ?"
_FIRST = "SELECT id, created FROM messages WHERE conversation = ? ORDER BY id LIMIT 1"
_SNIPPET = "snippet({index}, 0, char(1), char(2), '…', {length})"


def search(connection: sqlite3.Connection, text: str, limit: int = 50) -> list[ChatHit]:
    """Titles and messages that hold all of `text`; none for no words; raises sqlite3.Error."""
    text = text[:_MOST_LETTERS].encode("utf-8", "replace").decode().replace("\0", " ")
    hits = _messages(connection, text, limit)
    titles = _titles(connection, text, {hit.chat for hit in hits}, limit)
    return [*titles, *hits][:limit]


def _messages(connection: sqlite3.Connection, text: str, limit: int) -> list[ChatHit]:
    if not re.search(f"[{UNSPACED}]", text):
        query = match_query(text)
        return _by_index(connection, "messages_fts", 16, query, (), limit) if query else []
    words = text.replace('"', " ").split()
    long = [word for word in words if len(word) >= 3]
    short = [word for word in words if len(word) < 3]
    if long:
        query = " ".join(f'"{word}"' for word in long)
        return _by_index(connection, "messages_trigram", 40, query, short, limit)
    return _by_looking(connection, short, limit)


def _titles(
    connection: sqlite3.Connection, text: str, known: Collection[str], limit: int
) -> list[ChatHit]:
    """Chats that are not `known` already by the words of their titles, the latest first."""
    pattern = title_pattern(text)
    if pattern is None:
        return []
    rows = connection.execute(_TITLES, (_LATEST,))
    found = [(chat, str(title)) for chat, title in rows if pattern.match(folded(str(title)))]
    hits = []
    for chat, title in [each for each in found if each[0] not in known][:limit]:
        first = connection.execute(_FIRST, (chat,)).fetchone()
        if first is not None:
            hits.append(ChatHit(chat, title, first[0], TITLE, first[1], ((title, True),)))
    return hits


def title_pattern(text: str) -> re.Pattern[str] | None:
    """What a folded title with every word of `text` matches, as `match_query` reads it.

    >>> bool(title_pattern("OU caf").match(folded("Où est le café ?")))
    True
    """
    words = re.findall(r"[^\W_]+", folded(text))
    if not words:
        return None
    is_beginning = len(words[-1]) > 1
    edge = "" if re.search(f"[{UNSPACED}]", text) else r"(?<![^\W_])"
    ends = [edge and r"(?![^\W_])"] * len(words)
    if is_beginning:
        ends[-1] = ""
    ahead = "".join(
        f"(?=.*{edge}{re.escape(word)}{end})" for word, end in zip(words, ends, strict=True)
    )
    return re.compile(ahead, re.DOTALL)


def folded(text: str) -> str:
    """Text without case and accents."""
    if text.isascii():
        return text.lower()
    letters = unicodedata.normalize("NFD", text.casefold())
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def match_query(text: str) -> str:
    """An FTS5 query for text with every word of `text`, whatever signs are in it.

    The last is a beginning, unless it is one letter, which too many words begin with.

    >>> match_query('say "hi" ++ OR* no')
    '"say" "hi" "OR*" "no" *'
    """
    words = [word for word in text.replace('"', " ").split() if re.search(r"\w", word)]
    if not words:
        return ""
    is_beginning = re.search(r"\w\w\W*$", words[-1]) is not None
    return " ".join(f'"{word}"' for word in words) + " *" * is_beginning


def optimize_search(connection: sqlite3.Connection) -> None:
    """Merge the indexes, which leaves nothing of what was deleted, in the caller's transaction."""
    for index in INDEXES:
        connection.execute(f"INSERT INTO {index} ({index}) VALUES ('optimize')")


def rebuild_search(connection: sqlite3.Connection) -> None:
    """Make the indexes anew from the messages, inside the caller's transaction."""
    for index in INDEXES:
        connection.execute(f"INSERT INTO {index} ({index}) VALUES ('rebuild')")


def marked(snippet: Sequence[tuple[str, bool]]) -> str:
    """A snippet in one line, with what matches in [brackets]."""
    return " ".join("".join(f"[{text}]" if hit else text for text, hit in snippet).split())


def _by_index(
    connection: sqlite3.Connection,
    index: str,
    length: int,
    query: str,
    besides: Sequence[str],
    limit: int,
) -> list[ChatHit]:
    """Messages that an index finds, and that hold the words of `besides`."""
    statement = _FOUND.format(
        snippet=_SNIPPET.format(index=index, length=length),
        found=f"{index} JOIN messages ON messages.id = {index}.rowid",
        number=f"{index}.rowid",
        condition=f"{index} MATCH ?" + " AND instr(messages.content, ?)" * len(besides),
    )
    rows = connection.execute(statement, (query, *besides, limit))
    return [_hit(row, _pieces(str(row[-1]))) for row in rows]


def _by_looking(connection: sqlite3.Connection, words: Sequence[str], limit: int) -> list[ChatHit]:
    """The same without an index: among the latest messages."""
    statement = _FOUND.format(
        snippet="messages.content",
        found="messages",
        number="messages.id",
        condition="messages.id > (SELECT max(id) FROM messages) - ? AND state <> 'open'"
        + " AND instr(messages.content, ?)" * len(words),
    )
    rows = connection.execute(statement, (_LATEST, *words, limit))
    return [_hit(row, _around(str(row[-1]), words[0])) for row in rows]


def _hit(row: Sequence[Any], snippet: tuple[tuple[str, bool], ...]) -> ChatHit:
    chat, title, message, role, created = row[:5]
    return ChatHit(chat, title, message, role, created, snippet)


def _pieces(snippet: str) -> tuple[tuple[str, bool], ...]:
    """Text and what is marked in it.

    >>> _pieces("a \\x01hit\\x02!")
    (('a ', False), ('hit', True), ('!', False))
    """
    pieces, is_hit = [], False
    for piece in re.split(f"([{_ON}{_OFF}])", snippet):
        if piece in (_ON, _OFF):
            is_hit = piece == _ON
        elif piece:
            pieces.append((piece, is_hit))
    return tuple(pieces)


def _around(content: str, word: str) -> tuple[tuple[str, bool], ...]:
    place = content.index(word)
    end = place + len(word)
    before, after = content[max(place - _AROUND, 0) : place], content[end : end + _AROUND]
    return tuple(piece for piece in ((before, False), (word, True), (after, False)) if piece[0])
