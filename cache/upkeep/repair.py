"""Mending a database: an index is made anew in place, a damaged file replaced by its last backup.

What SQLite still reads of the damaged file is then added. Tables are read by number of row, from
both ends, and from the middle of what lies between: a row is out of reach where its own page or one
on the way to it is damaged. A row that is here already, under its number or as a whole, is not
added, whatever damage made of it; so a repair that was interrupted may be done again.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any

from edgespec.cache.chats.record_merger import RecordMerger
from edgespec.cache.chats.rows import HEAD, MESSAGE, head_of, message_of, settings_of, title_of
from edgespec.cache.chats.search import rebuild_search
from edgespec.cache.database import DAMAGE, connect, is_damage, is_in_use, transaction
from edgespec.cache.tokens.codec import BLOCK, MAX_TOKEN, unpack
from edgespec.cache.tokens.sequences import TIERS, Recording, SequenceStore, Tier, VocabularyKey
from edgespec.cache.upkeep.check import TYPES, problems
from edgespec.cache.upkeep.lock import upkeep_lock
from edgespec.cache.upkeep.quarantine import mark_recovered, replace_damaged, unread
from edgespec.chats import Chat, ChatHead, ChatMessage, ChatSettings
from edgespec.errors import BusyError

_LARGEST = 1 << 48  # no row has a larger number, unless it is damaged
_MOST_PROBES, _MOST_IN_VAIN = 2000, 100  # enough to come upon a row from the largest number
_LATEST_S = 1 << 40  # seconds since 1970; no clock shows more
_TYPE_OF = {int: "integer", float: "real", str: "text", bytes: "blob"}
_MAY_BE_NULL = (
    *("conversation", "file", "parent", "model", "figures", "sources", "writer"),
    *("tip", "deleted", "settings"),
)
_BEFORE = {
    **{"parent": str(_LARGEST), "state": "'done'", "origin": "'chat'", "pinned": "0"},
    "num_messages": "0",
    **dict.fromkeys(("updated", "spoken"), "created"),
}
"""What stood for a column in schemas that did not have it; NULL for all others.

A parent that is nowhere stands for the message before.
"""
_TIMES = ("created", "updated", "spoken", "deleted")

_SAME_MESSAGE = (
    "SELECT 1 FROM messages WHERE id = ?"
    " AND (created = ? AND role = ? OR conversation = ? AND content = ?)"
)
_SAME_CONVERSATION = "SELECT 1 FROM conversations WHERE number = ? AND created = ?"
_SAME_SEQUENCE = (
    "SELECT 1 FROM sequences WHERE id = ? AND (created = ? OR EXISTS"
    " (SELECT 1 FROM blocks WHERE block = first_block AND sequence = sequences.id AND tokens = ?))"
)

Row = tuple[Any, ...]


def repair(path: Path) -> list[str]:
    """Mend the database at `path` and tell in lines what was done.

    What damaged files hold that were replaced when they could not be opened is added, too. Raises
    sqlite3.Error or OSError if there is no room, BusyError if another repairs it or the file is to
    be replaced while others use it.
    """
    with upkeep_lock(path):
        told = _sound(path)
        for damaged in unread(path):
            num_messages, num_sequences = _recover(damaged, path)
            kept = mark_recovered(path, damaged)
            told.append(
                f"added {num_messages} messages and {num_sequences} recorded sequences of the"
                f" damaged file, which is kept as {kept.name}"
            )
        return told


def _sound(path: Path) -> list[str]:
    """Have a sound database at `path`, and tell in lines how."""
    with contextlib.closing(connect(path, 10.0, 32 << 20)) as connection:
        if not problems(connection):
            return []
        if _indexes_mended(connection):
            return ["the indexes were made anew; nothing was lost"]
    if is_in_use(path):  # others would write into the damaged file
        raise BusyError(
            f"the database {path} is in use", "end other EdgeSpec commands, then try again"
        )
    _damaged, backup = replace_damaged(path)
    if backup is None:
        return ["there is no sound backup: a new database was begun"]
    return [f"{backup.name} took the place of the database"]


def _indexes_mended(connection: sqlite3.Connection) -> bool:
    """True if nothing is wrong with the file as such, and with the indexes nothing any more."""
    try:
        if [row[0] for row in connection.execute("PRAGMA integrity_check(1)")] != ["ok"]:
            return False
        SequenceStore(connection).rebuild_index()
        with transaction(connection):
            rebuild_search(connection)
        return not problems(connection)
    except DAMAGE as error:
        if not is_damage(error):
            raise
        return False


def _recover(damaged: Path, into: Path) -> tuple[int, int]:
    """Add what can be read of `damaged` to the database at `into`; messages and sequences added.

    The damaged file stays as it is. Raises sqlite3.Error if there is no room for what it holds.
    """
    address = f"{damaged.absolute().as_uri()}?mode=ro"
    with (
        contextlib.closing(sqlite3.connect(address, uri=True)) as source,
        contextlib.closing(connect(into, 10.0, 32 << 20)) as target,
    ):
        source.text_factory = lambda text: text.decode("utf-8", "replace")
        merger = _Recovery(source, target).add()
    return merger.num_messages, merger.num_sequences


def readable_rows(connection: sqlite3.Connection, table: str) -> Iterator[tuple[int, Row]]:
    """The number and the values (`TYPES`) of each row of a table that can be read, in no order.

    A damaged file may give one twice. Raises what another's lock and the like raise.
    """
    types = TYPES[table]
    columns = ", ".join(_columns_of(connection, table))
    query = f"SELECT rowid, {columns} FROM {table} WHERE rowid BETWEEN ? AND ?"
    ranges = [(0, _LARGEST)]
    is_legible = False
    for num_probes in range(_MOST_PROBES):
        if not ranges or (num_probes > _MOST_IN_VAIN and not is_legible):
            break
        low, high = ranges.pop()
        for order in ("ASC", "DESC"):
            try:
                rows = connection.execute(f"{query} ORDER BY rowid {order}", (low, high))
                for number, *row in rows:
                    low, high = (number + 1, high) if order == "ASC" else (low, number - 1)
                    is_legible = True
                    if all(map(_can_be, types.items(), row)):
                        yield number, tuple(row)
                break
            except DAMAGE as error:
                code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
                if not is_damage(error) and code != sqlite3.SQLITE_IOERR:  # the file is cut off
                    raise
        else:
            if low < high:
                middle = (low + high) // 2
                ranges += [(middle + 1, high), (low, middle)]


def _columns_of(connection: sqlite3.Connection, table: str) -> list[str]:
    """The columns of `TYPES`, those replaced that a database of an older schema lacks."""
    try:
        rows = connection.execute(f"SELECT name FROM pragma_table_info('{table}')")
        there = {name for (name,) in rows}
    except DAMAGE as error:
        if not is_damage(error):
            raise
        there = set(TYPES[table])
    return [name if name in there else _BEFORE.get(name, "NULL") for name in TYPES[table]]


class _Recovery:
    def __init__(self, source: sqlite3.Connection, target: sqlite3.Connection) -> None:
        self._source = source
        self._target = target
        self._merger = RecordMerger(target)

    def add(self) -> RecordMerger:
        """Add everything, in small transactions, the oldest first."""
        for table in ("facts", "ngram_caches", "calibrations"):
            self._add_values(table)
        self._add_conversations()
        self._add_sequences()
        return self._merger

    def _rows(self, table: str) -> list[tuple[int, Row]]:
        return sorted(dict(readable_rows(self._source, table)).items())

    def _is_here(self, query: str, *values: object) -> bool:
        return self._target.execute(query, values).fetchone() is not None

    def _add_values(self, table: str) -> None:
        """Measurements and what drafting learned; the newest of a key counts."""
        first, second, *_ = TYPES[table]
        with transaction(self._target):
            self._target.executemany(
                f"INSERT INTO {table} ({', '.join(TYPES[table])}) VALUES (?, ?, ?, ?)"
                f" ON CONFLICT ({first}, {second}) DO UPDATE SET value = excluded.value,"
                f" updated = excluded.updated WHERE excluded.updated > {table}.updated",
                (row for _, row in self._rows(table)),
            )

    def _add_conversations(self) -> None:
        """Chats, each message below what it was below; messages name one whose own row is lost."""
        messages: dict[str, list[ChatMessage]] = defaultdict(list)
        here: dict[str, dict[int, int]] = defaultdict(dict)
        for number, row in self._rows("messages"):
            named = dict(zip(TYPES["messages"], row, strict=True), id=number)
            message = message_of([named[name] for name in MESSAGE.split(", ")])
            chat = str(named["conversation"])
            messages[chat].append(message)
            same = (number, message.created, message.role, chat, message.content)
            if self._is_here(_SAME_MESSAGE, *same):
                here[chat][number] = number
        rows = {}
        for number, row in self._rows("conversations"):
            named = dict(zip(TYPES["conversations"], row, strict=True))
            is_known = self._is_here(_SAME_CONVERSATION, number, named["created"])
            if not is_known or len(here[named["id"]]) < len(messages[named["id"]]):
                rows[named["id"]] = named
        for name in dict.fromkeys([*messages, *rows]):
            if name in rows or len(here[name]) < len(messages[name]):
                self._add_chat(name, rows.get(name), messages[name], here[name])

    def _add_chat(
        self,
        name: str,
        row: Mapping[str, Any] | None,
        messages: list[ChatMessage],
        here: Mapping[int, int],
    ) -> None:
        if row is None:
            asked = next((each.content for each in messages if each.role == "user"), "")
            times = messages[0].created, messages[-1].created
            head = ChatHead(name, title_of(asked), *times, len(messages))
            chat = Chat(head, ChatSettings(), tuple(messages), messages[-1].id)
        else:
            head = head_of([row[column] for column in HEAD.split(", ")])
            chat = Chat(head, settings_of(row["settings"]), tuple(messages), row["tip"])
        with transaction(self._target):
            self._merger.chat(chat, here, None if row is None else row["deleted"])

    def _add_sequences(self) -> None:
        """Recorded sequences; of one that lost a block, the parts before and behind it.

        Not those of imported files, which can be imported again.
        """
        blocks: dict[int, dict[int, bytes]] = defaultdict(dict)
        for block, (sequence, packed) in self._rows("blocks"):
            blocks[sequence][block] = packed
        new = []
        for number, (scope, name, file, first, *lengths, created, _) in self._rows("sequences"):
            same = (number, created, blocks[number].get(first))
            if file is None and not self._is_here(_SAME_SEQUENCE, *same):
                parts = _parts(blocks[number], first, *lengths)
                new += [(scope, part, name, created) for part in parts]
        scopes = self._scopes({scope for scope, *_ in new})
        for scope, (context, tokens), name, created in new:
            if scope in scopes:
                with transaction(self._target):
                    recording = Recording(tokens, context, name)
                    self._merger.sequence(scopes[scope], recording, created)

    def _scopes(self, needed: Set[int]) -> dict[int, int]:
        """The numbers here of the scopes `needed`: those of the backup where a row is lost."""
        named: dict[int, tuple[VocabularyKey, Tier]] = {}
        vocabularies: dict[int, Row] = {}
        for database in (self._target, self._source):
            vocabularies |= readable_rows(database, "vocabularies")
            for number, (vocabulary, tier) in readable_rows(database, "scopes"):
                if tier in TIERS and vocabulary in vocabularies:
                    named[number] = VocabularyKey(*vocabularies[vocabulary]), tier
        return {number: self._merger.scope(*named[number]) for number in needed & named.keys()}


def _parts(
    blocks: Mapping[int, bytes], first_block: int, num_context: int, num_tokens: int
) -> Iterator[tuple[list[int], list[int]]]:
    """Context and tokens of the parts of a sequence between lost blocks, first to last."""
    total = num_context + num_tokens
    runs: list[tuple[int, list[int]]] = []
    for block, packed in sorted(blocks.items()):
        start, tokens = (block - first_block) * BLOCK, unpack(packed).tolist()
        is_here = 0 <= start < total and len(packed) == 4 * min(BLOCK, total - start)
        if is_here and max(tokens) <= MAX_TOKEN:
            if not runs or start != runs[-1][0] + len(runs[-1][1]):
                runs.append((start, []))
            runs[-1][1].extend(tokens)
    for start, tokens in runs:
        num_before = max(num_context - start, 0)
        if len(tokens) > num_before:
            yield tokens[:num_before], tokens[num_before:]


def _can_be(column: tuple[str, str], value: Any) -> bool:  # noqa: ANN401
    name, kind = column
    if value is None:
        return name in _MAY_BE_NULL
    return _TYPE_OF[type(value)] == kind and (name not in _TIMES or 0 <= value < _LATEST_S)
