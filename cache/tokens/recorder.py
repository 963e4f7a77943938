"""The writer thread: what is to be remembered waits in a short queue, off the hot path.

A killed process loses what was still in the queue, at most the current turn. A full queue, a lock
that somebody holds too long, a full disk: the recording is dropped and `notice` says so; a chat
never waits and never fails.

The thread backs the database up, too: after a turn if the last backup is a day old, until the next
turn comes; and at the end of a run that recorded something, for as long as nobody minds waiting.
"""

from __future__ import annotations

import contextlib
import math
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from edgespec.cache.chats.conversations import Conversations
from edgespec.cache.chats.journal import Entry
from edgespec.cache.database import DAMAGE, connect, is_damage, transaction
from edgespec.cache.tokens.eviction import DEFAULT_LIMIT, evict
from edgespec.cache.tokens.sequences import Recording, SequenceStore, VocabularyKey
from edgespec.cache.upkeep.backup import back_up, is_due
from edgespec.errors import BusyError, Cancelled

_MAX_WAITING = 64
_PATIENCE_S = 10.0
_BUSY_TIMEOUT_S = 5.0
_QUESTION_TIMEOUT_S = 0.5
_CACHE_BYTES = 8 << 20

_LAST_BACKUP_S, _LAST_BACKUP_BYTES = 0.3, 32 << 20
"""How long a backup may take when a run ends, and of what; others are made once a day."""


@dataclass(frozen=True, slots=True)
class _Turn:
    """An answer and what it was drafted from, with its conversation; or a question only."""

    recording: Recording | None
    entry: Entry | None
    used: frozenset[int] = frozenset()
    owner: str = ""


class Recorder:
    """Records answers in a thread of its own; only `flush` and `close` wait.

    `notice` is empty, or one line on the last recording that failed.
    """

    def __init__(
        self, path: Path, vocabulary: VocabularyKey, limit_bytes: int = DEFAULT_LIMIT
    ) -> None:
        """`path` is a database that `open_database` has opened; answers are in `vocabulary`."""
        self._path = path
        self._vocabulary = vocabulary
        self._limit_bytes = limit_bytes
        self._jobs: queue.Queue[_Turn | threading.Event | None] = queue.Queue(_MAX_WAITING)
        self._connection: sqlite3.Connection | None = None
        self._is_changed = self._is_backup_failing = False
        self.notice = ""
        self._worker = threading.Thread(target=self._work, name="recorder", daemon=True)
        self._worker.start()

    def record(
        self,
        recording: Recording,
        entry: Entry | None = None,
        used: Iterable[int] = (),
        owner: str = "",
    ) -> None:
        """Remember an answer and its messages soon, unless too much is waiting already.

        `used` are sequences that drafts were kept from: they are forgotten later. What is recorded
        for an `owner` is found for this one alone.
        """
        self._queue(_Turn(recording, entry, frozenset(used), owner))

    def note(self, entry: Entry) -> None:
        """Keep what was asked soon, whatever comes of it."""
        self._queue(_Turn(None, entry))

    def _queue(self, job: _Turn) -> None:
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            self.notice = "the database is too slow to keep up; an answer was not remembered"

    def flush(self) -> bool:
        """Wait until all that came before is written; False if that takes too long."""
        done = threading.Event()
        try:
            self._jobs.put(done, timeout=_PATIENCE_S)
        except queue.Full:
            return False
        return done.wait(_PATIENCE_S)

    def close(self) -> None:
        """Write what is waiting and end the thread, or leave it to its work if that takes long."""
        with contextlib.suppress(queue.Full):
            self._jobs.put(None, timeout=_PATIENCE_S)
        self._worker.join(_PATIENCE_S)

    def _work(self) -> None:
        try:
            while (job := self._jobs.get()) is not None:
                if isinstance(job, threading.Event):  # what came before is written
                    job.set()
                else:
                    self._try(job)
                    if not self._is_backup_failing and self._jobs.empty() and is_due(self._path):
                        self._back_up(lambda: not self._jobs.empty())
            if self._is_changed:
                end = time.monotonic() + _LAST_BACKUP_S
                self._back_up(lambda: time.monotonic() > end, _LAST_BACKUP_BYTES)
        finally:
            if self._connection is not None:
                self._connection.close()

    def _try(self, job: _Turn) -> None:
        try:
            self._write(job)
        except sqlite3.OperationalError as error:  # locked, full, read-only: may pass
            if job.recording is None:  # its answer brings it along, or tells
                return
            self.notice = f"an answer was not remembered ({error})"
        except DAMAGE as error:
            self._tell_damage(error)
        except ValueError as error:  # token ids that are none
            self.notice = f"an answer was not remembered ({error})"

    def _tell_damage(self, error: Exception) -> None:
        self.notice = f"the database is damaged ({error}); run `edgespec db check`"

    def _back_up(self, is_over: Callable[[], bool], most_bytes: float = math.inf) -> None:
        try:
            if self._path.stat().st_size <= most_bytes:
                back_up(self._path, is_over, wait_s=0.0)
                self._is_changed = False
        except (Cancelled, BusyError):  # another time
            pass
        except (OSError, *DAMAGE) as error:
            self._is_backup_failing = True
            if is_damage(error):
                self._tell_damage(error)
            else:
                self.notice = f"the database could not be backed up ({error})"

    def _write(self, job: _Turn) -> None:
        if self._connection is None:
            self._connection = connect(self._path, _BUSY_TIMEOUT_S, _CACHE_BYTES)
            # Copying the log back is done after the commit, while nobody waits.
            self._connection.execute("PRAGMA wal_autocheckpoint=0")
        patience_s = _BUSY_TIMEOUT_S if job.recording else _QUESTION_TIMEOUT_S
        self._connection.execute(f"PRAGMA busy_timeout={patience_s * 1e3:.0f}").fetchall()
        store = SequenceStore(self._connection)
        scope = store.scope(self._vocabulary.of(job.owner), "model") if job.recording else 0
        with transaction(self._connection):
            if job.recording:
                store.add(scope, job.recording)
                store.touch(job.used)
            if (entry := job.entry) is not None:
                conversations = Conversations(self._connection)
                conversations.follow(entry.conversation, entry.title, entry.said)
        self._is_changed = True
        if job.recording:
            evict(self._connection, self._limit_bytes)
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
