"""Carrying conversations and recorded tokens to another machine, as lines of JSON.

    {"edgespec": "export", "version": 2}
    {"vocabulary": FINGERPRINT, "num_tokens": N}                        before its first sequence
    {"conversation": ID, "title": T, "messages": [...], ...}            edgespec.cache.chats.as_json
    {"sequence": [TOKEN, ...], "context": [...], "vocabulary": FINGERPRINT, "tier": "model",
     "conversation": ID or null, "created": S}

Imported files are not carried along: they can be imported where they are; nor are deleted chats.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from edgespec.cache.chats.as_json import chat_of, chat_value
from edgespec.cache.chats.record_merger import RecordMerger
from edgespec.cache.chats.rows import HEAD, MESSAGE, head_of, linked, message_of, settings_of
from edgespec.cache.database import transaction
from edgespec.cache.tokens.sequences import Recording, SequenceStore, VocabularyKey, require_numbers
from edgespec.chats import Chat
from edgespec.errors import UsageError

VERSION = 2
"""Files of all versions up to this one can be imported."""


@dataclass(frozen=True, slots=True)
class Carried:
    """What an import of an export added."""

    num_conversations: int
    num_sequences: int
    num_known: int


def is_export(first_line: str) -> bool:
    """True if a file that begins with this line was written by `export_lines`."""
    try:
        head = json.loads(first_line)
    except ValueError:
        return False
    return isinstance(head, dict) and head.get("edgespec") == "export"


def export_lines(connection: sqlite3.Connection) -> Iterator[str]:
    """Every conversation and every sequence that belongs to no file; raises sqlite3.Error.

    All of it as it is when the first line is asked for.
    """
    connection.execute("BEGIN")
    try:
        yield _line({"edgespec": "export", "version": VERSION})
        for chat in _chats(connection):
            yield _line(chat_value(chat))
        for fingerprint, num_tokens in connection.execute(
            "SELECT fingerprint, num_tokens FROM vocabularies ORDER BY id"
        ):
            yield _line({"vocabulary": fingerprint, "num_tokens": num_tokens})
        yield from _sequence_lines(connection)
    finally:
        connection.execute("ROLLBACK")


def import_lines(connection: sqlite3.Connection, lines: Iterable[str]) -> Carried:
    """Add what an export holds and is not here yet; raises UsageError, sqlite3.Error.

    Done in parts: after an interrupt the same import goes on.
    """
    carrier = _Carrier(connection)
    for number, line in enumerate(lines, start=1):
        try:
            value = json.loads(line)
            carrier.take(value)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise UsageError(
                f"line {number} of the export cannot be read ({error})", "export it again"
            ) from error
    return Carried(carrier.num_conversations, carrier.num_sequences, carrier.num_known)


class _Carrier:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._merger = RecordMerger(connection)
        self._sizes: dict[str, int] = {}
        self.num_conversations = self.num_sequences = self.num_known = 0

    def take(self, value: dict[str, Any]) -> None:
        """Add what one line holds."""
        if "edgespec" in value:
            if not 1 <= int(value["version"]) <= VERSION:
                raise UsageError(
                    f"the export has version {value['version']}, this EdgeSpec reads {VERSION}",
                    "update EdgeSpec",
                )
        elif "sequence" in value:
            self._sequence(value)
        elif "messages" in value:
            self._conversation(value)
        else:
            self._sizes[str(value["vocabulary"])] = int(value["num_tokens"])

    def _conversation(self, value: dict[str, Any]) -> None:
        chat = chat_of(value)
        with transaction(self._connection):
            is_new = self._merger.chat(chat)
        self.num_conversations += is_new
        self.num_known += not is_new

    def _sequence(self, value: dict[str, Any]) -> None:
        fingerprint = str(value["vocabulary"])
        vocabulary = VocabularyKey(fingerprint, self._sizes[fingerprint])
        tier = value["tier"]
        if tier not in ("model", "statistics"):
            raise ValueError(f"there is no tier {tier!r}")
        scope = self._merger.scope(vocabulary, tier)
        recording = Recording(value["sequence"], value["context"], value["conversation"])
        with transaction(self._connection):
            is_new = self._merger.sequence(scope, recording, float(value["created"]))
        self.num_sequences += is_new
        self.num_known += not is_new


def _chats(connection: sqlite3.Connection) -> Iterator[Chat]:
    """All chats that are not deleted, the one spoken in last at the end; raises sqlite3.Error."""
    heads = connection.execute(
        f"SELECT {HEAD}, settings, tip FROM conversations WHERE deleted IS NULL"
        " ORDER BY spoken, number"
    ).fetchall()
    for *head, settings, tip in heads:
        rows = connection.execute(
            f"SELECT {MESSAGE} FROM messages WHERE conversation = ? ORDER BY id", (head[0],)
        )
        messages = tuple(linked(map(message_of, rows)))
        yield Chat(head_of(head), settings_of(settings), messages, tip)


def _sequence_lines(connection: sqlite3.Connection) -> Iterator[str]:
    store = SequenceStore(connection)
    rows = connection.execute(
        "SELECT fingerprint, tier, conversation, first_block, num_context, sequences.num_tokens,"
        " created FROM sequences JOIN scopes ON scopes.id = scope"
        " JOIN vocabularies ON vocabularies.id = vocabulary"
        " WHERE file IS NULL ORDER BY sequences.id"
    )
    for fingerprint, tier, conversation, first_block, num_context, num_tokens, created in rows:
        require_numbers(first_block, num_context, num_tokens)
        whole = store.read(first_block, num_context + num_tokens).tolist()
        yield _line(
            {
                "sequence": whole[num_context:],
                "context": whole[:num_context],
                "vocabulary": fingerprint,
                "tier": tier,
                "conversation": conversation,
                "created": created,
            }
        )


def _line(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"
