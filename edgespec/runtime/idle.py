"""Work that is done while nobody waits for an answer.

    an answer begins   `open`     the work is stopped, within a millisecond or so
    the last one ends  `close`    the work is begun, or begun again, in a thread

Work that only changes things in one last step, which nothing stops, never does so within an answer.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable

from edgespec.cache.database import DAMAGE
from edgespec.errors import BusyError, Cancelled, EdgeSpecError
from edgespec.passes import Kept
from edgespec.reports import Report
from edgespec.types import Completion, CompletionRequest, EncodedPrompt

Pause = Callable[[], None]
"""To be called again and again by work: raises Cancelled when it is to end."""


class BetweenAnswers:
    """Implements `edgespec.protocols.Observer`: does its work after each answer.

    Work that fails is told in one line, and is the last.
    """

    def __init__(self, work: Callable[[Pause], None], what: str, report: Report) -> None:
        """`what` tells people what `work` does, and what is done no more after it failed."""
        self._work = work
        self._what = what
        self._report = report
        self._changed = threading.Condition()
        self._num_answers = 0  # under way
        self._is_due = self._is_working = self._is_over = False
        self._thread: threading.Thread | None = None

    def open(self, _request: CompletionRequest, _prompt: EncodedPrompt) -> BetweenAnswers:
        """An answer begins; returns when the work has stopped."""
        with self._changed:
            self._num_answers += 1
            self._changed.wait_for(lambda: not self._is_working)
        return self

    def take(self, kept: Kept) -> None:
        """Passes are of no interest."""

    def close(self, _completion: Completion | None = None) -> None:
        """An answer ended; time to work, unless there are others."""
        with self._changed:
            self._num_answers -= 1
            self._is_due = True
            if self._thread is None and not self._is_over:
                self._thread = threading.Thread(
                    target=self._run, name="between answers", daemon=True
                )
                self._thread.start()
            self._changed.notify_all()

    def wait(self, timeout_s: float) -> bool:
        """Wait until there is nothing to do; False if that takes longer."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._is_over or not (self._is_due or self._is_working), timeout_s
            )

    def stop(self) -> None:
        """End the thread."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def __enter__(self) -> BetweenAnswers:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._is_over or (self._is_due and not self._num_answers)
                )
                if self._is_over:
                    return
                self._is_working, self._is_due = True, False
            is_due = is_over = False
            try:
                self._work(self._pause)
            except Cancelled:
                is_due = True
            except (BusyError, sqlite3.OperationalError):  # another process is at it
                pass
            except (EdgeSpecError, OSError, ValueError, MemoryError, *DAMAGE) as error:
                is_over = True
                self._report(f"{self._what} no more in this run: {error}")
            with self._changed:
                self._is_working = False
                self._is_due |= is_due
                self._is_over |= is_over
                self._changed.notify_all()

    def _pause(self) -> None:
        if self._num_answers or self._is_over:
            raise Cancelled
