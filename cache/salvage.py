"""Saving what a damaged database still holds into a sound one.

Rows come from its leaf pages one by one (`edgespec.cache.leaves`), so that damage costs what was on
the pages that it hit. Recorded sequences are indexed anew; of one that lost a block, the parts
before and behind it are kept.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from edgespec.cache.completing import complete
from edgespec.cache.conversations import StoredMessage
from edgespec.cache.database import connect
from edgespec.cache.fragments import fragments, is_whole
from edgespec.cache.journal import title_of
from edgespec.cache.leaves import open_leaves
from edgespec.cache.merging import Merger
from edgespec.cache.tokens import TIERS, Recording, VocabularyKey, transaction
from edgespec.cache.wreckage import SequenceRow, Wreckage, collect

_AT_ONCE = 64
_LATEST_S = 1 << 40  # seconds since 1970; no clock shows more


@dataclass(frozen=True, slots=True)
class Salvaged:
    """Rows found; of `num_broken` sequences some or all tokens are lost."""

    num_messages: int
    num_sequences: int
    num_broken: int


def salvage(damaged: Path, into: Path) -> Salvaged:
    """Add what the database at `damaged` holds to the one at `into`; the first is not changed.

    What is there already stays and is not added again. Raises OSError or sqlite3.Error if there is
    no room.
    """
    changed = damaged.stat().st_mtime
    with open_leaves(damaged) as leaves:
        wreckage = collect(leaves)
        complete(leaves, wreckage)
    with contextlib.closing(connect(into, 5.0, 32 << 20)) as target:
        merger = Merger(target)
        _add_small_values(target, wreckage)
        _add_conversations(target, merger, wreckage, changed)
        saving = _Sequences(target, merger, wreckage, changed)
        saving.add()
    return Salvaged(len(wreckage.messages), saving.num_saved, len(saving.broken))


def _add_small_values(target: sqlite3.Connection, wreckage: Wreckage) -> None:
    """Measurements and what drafting learned; what was learned since is newer."""
    with transaction(target):
        target.executemany(
            "INSERT OR IGNORE INTO facts (kind, key, value, updated) VALUES (?, ?, ?, ?)",
            wreckage.facts,
        )
        for table, *row in wreckage.pairs:
            target.execute(
                f"INSERT OR IGNORE INTO {table} (target, drafter, value, updated)"
                " VALUES (?, ?, ?, ?)",
                row,
            )


def _add_conversations(
    target: sqlite3.Connection, merger: Merger, wreckage: Wreckage, changed: float
) -> None:
    """Conversations in the order of their numbers; messages give title and time to a lost one."""
    said: dict[str, list[StoredMessage]] = defaultdict(list)
    for _number, (conversation, role, content, created) in sorted(wreckage.messages.items()):
        said[conversation].append(StoredMessage(role, content, _time(created, changed)))
    known = {name: (title, at) for _, (name, title, at) in sorted(wreckage.conversations.items())}
    for name, messages in said.items():
        known.setdefault(name, (title_of(messages), messages[0].created))
    names = list(known)
    for start in range(0, len(names), _AT_ONCE):
        with transaction(target):
            for name in names[start : start + _AT_ONCE]:
                title, created = known[name]
                merger.conversation(name, title, _time(created, changed), said[name])


class _Sequences:
    """Adds the recorded sequences, in the order of recording.

    A file of which something is lost is read anew by the next import.
    """

    def __init__(
        self, target: sqlite3.Connection, merger: Merger, wreckage: Wreckage, changed: float
    ) -> None:
        self._changed = changed
        self._target = target
        self._merger = merger
        self._wreckage = wreckage
        self._blocks: dict[int, dict[int, bytes]] = defaultdict(dict)
        for block, (sequence, packed) in wreckage.blocks.items():
            self._blocks[sequence][block] = packed
        self._scopes = self._add_scopes()
        self._complete: set[int | None] = set()
        self._files = self._add_files()
        self.broken = {*wreckage.sequences, *self._blocks}
        self.num_saved = 0

    def add(self) -> None:
        """Add what there is of each sequence whose scope, and file if it has one, are known."""
        rows = sorted(self._wreckage.sequences.items())
        for start in range(0, len(rows), _AT_ONCE):
            with transaction(self._target):
                for number, row in rows[start : start + _AT_ONCE]:
                    if row.file in self._complete:
                        self.num_saved += 1
                        self.broken.discard(number)
                    elif row.scope in self._scopes and (
                        row.file is None or row.file in self._files
                    ):
                        self._add(number, row)
        self._note_whole_files()

    def _add(self, number: int, row: SequenceRow) -> None:
        found = fragments(row.extent, self._blocks[number])
        file = self._files[row.file] if row.file is not None else None
        created = _time(row.created, self._changed)
        for part in found:
            tokens, context = part.tokens.tolist(), part.context.tolist()
            recording = Recording(tokens, context, row.conversation, file)
            self._merger.sequence(self._scopes[row.scope], recording, created)
        self.num_saved += bool(found)
        if is_whole(row.extent, found):
            self.broken.discard(number)

    def _add_scopes(self) -> dict[int, int]:
        """Numbers of the scopes here, by their old numbers."""
        scopes = {}
        for number, (vocabulary, tier) in sorted(self._wreckage.scopes.items()):
            if tier in TIERS and vocabulary in self._wreckage.vocabularies:
                fingerprint, num_tokens = self._wreckage.vocabularies[vocabulary]
                key = VocabularyKey(fingerprint, num_tokens or self._largest_token(number) + 1)
                scopes[number] = self._merger.scope(key, tier)
        return scopes

    def _largest_token(self, scope: int) -> int:
        return max(
            (
                int(part.tokens.max())
                for number, row in self._wreckage.sequences.items()
                if row.scope == scope
                for part in fragments(row.extent, self._blocks[number])
            ),
            default=0,
        )

    def _add_files(self) -> dict[int, int]:
        """Numbers of the files here, by their old numbers; those imported since are complete."""
        files = {}
        with transaction(self._target):
            for number, (scope, path, _sha256, num_bytes) in sorted(self._wreckage.files.items()):
                if scope not in self._scopes:
                    continue
                place = (self._scopes[scope], path)
                self._target.execute(
                    "INSERT OR IGNORE INTO files (scope, path, sha256, num_bytes)"
                    " VALUES (?, ?, '', ?)",
                    (*place, num_bytes),
                )
                here, sha256 = self._target.execute(
                    "SELECT id, sha256 FROM files WHERE scope = ? AND path = ?", place
                ).fetchone()
                if sha256:
                    self._complete.add(number)
                else:
                    files[number] = here
        return files

    def _note_whole_files(self) -> None:
        if self.broken:  # it cannot be told of which file the lost ones were
            return
        with transaction(self._target):
            self._target.executemany(
                "UPDATE files SET sha256 = ? WHERE id = ?",
                ((self._wreckage.files[old][2], new) for old, new in self._files.items()),
            )


def _time(seconds: float | None, changed: float) -> float:
    """A time that can be: that of the file's last change for one that is lost or damaged."""
    return float(seconds) if seconds is not None and 0 <= seconds < _LATEST_S else changed
