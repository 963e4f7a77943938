"""Work that is done while nobody waits for an answer: one thread, one task at a time.

    loaded              `start`    the work is begun, unless a request comes at once
    an answer begins    `open`     the task under way is stopped, within 50 ms
    the last one ends   `close`    every task is due (again), unless the next request comes at once

A client that asks one thing after the other would wait for a task to stop each time, and find the
processor's caches full of its data.

Work that only changes things in one last step, which nothing stops, never does so within an answer.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from edgespec.cache.database import DAMAGE
from edgespec.errors import BusyError, Cancelled, EdgeSpecError
from edgespec.passes import Kept
from edgespec.pauses import Abortable, Pause
from edgespec.reports import Report
from edgespec.types import Completion, CompletionRequest, EncodedPrompt

REST_S = 0.3
"""How long the next request may take to come before work is begun."""


class IdleTask(Protocol):
    """Something to be done, in steps, while there is time."""

    @property
    def name(self) -> str:
        """What is done no more after it failed, for people."""
        ...

    def run(self, pause: Pause) -> bool:
        """Do a step, or all of it; True if there is more to do now.

        Raises what `pause` raises, to be called again later; EdgeSpecError, OSError, ValueError,
        MemoryError or sqlite3.Error end it for this run.
        """
        ...


class LateTask:
    """Implements `IdleTask`: a task for which there is no reason yet, looked at after each answer.

    A model that drafts, say, which is still being pulled.
    """

    def __init__(self, name: str, find: Callable[[], IdleTask | None]) -> None:
        """`find` makes the task as soon as there is a reason."""
        self.name = name
        self._find = find
        self._found: IdleTask | None = None

    def run(self, pause: Pause) -> bool:
        """Do the task, if there is one."""
        if self._found is None:
            self._found = self._find()
        return self._found is not None and self._found.run(pause)


class IdleWorker:
    """Implements `edgespec.protocols.Observer`: does its tasks while no answer is under way.

    One after the other in their order; one that fails is told in one line, and is left out.
    """

    def __init__(
        self, report: Report, tasks: Sequence[IdleTask] = (), rest_s: float = REST_S
    ) -> None:
        """Work begins `rest_s` after there was nothing else to do."""
        self._report = report
        self._rest_s = rest_s
        self._rests_until = 0.0
        self._tasks = list(tasks)
        self._due: list[IdleTask] = []
        self._pause = _Pause()
        self._changed = self._pause.changed
        self._is_working = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, if no request comes within a moment."""
        self._wake()

    def open(self, _request: CompletionRequest, _prompt: EncodedPrompt) -> _Answering:
        """An answer begins; returns when the task has stopped."""
        with self._changed:
            self._pause.num_answers += 1
            self._pause.abort()
            self._changed.wait_for(lambda: not self._is_working)
        return _Answering(self)

    @property
    def doing(self) -> str:
        """What is done now, "" if nothing is; from any thread."""
        with self._changed:
            return self._due[0].name if self._is_working and self._due else ""

    def finish(self) -> None:
        """An answer ended; time to work soon, unless there are others."""
        with self._changed:
            self._pause.num_answers -= 1
        self._wake()

    def wait(self, timeout_s: float) -> bool:
        """Wait until there is nothing to do; False if that takes longer."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._pause.is_over or not (self._due or self._is_working), timeout_s
            )

    def close(self) -> None:
        """End the thread; what a task was at is done again by whoever loads next."""
        with self._changed:
            self._pause.is_over = True
            self._pause.abort()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def __enter__(self) -> IdleWorker:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _wake(self) -> None:
        with self._changed:
            self._due = [*self._tasks]
            self._rests_until = time.monotonic() + self._rest_s
            if self._thread is None and self._tasks and not self._pause.is_over:
                self._thread = threading.Thread(target=self._run, name="idle", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._rest()
                if self._pause.is_over:
                    return
                task = self._due[0]
                self._is_working = True
            is_due = self._step(task)
            with self._changed:
                self._is_working = False
                if not is_due and task in self._due:
                    self._due.remove(task)
                self._changed.notify_all()

    def _rest(self) -> None:
        """Wait until there is work, and nobody has come for a while; with the lock."""
        while not self._pause.is_over:
            if not self._due or self._pause.num_answers:
                self._changed.wait()
                continue
            left_s = self._rests_until - time.monotonic()
            if left_s <= 0:
                return
            self._changed.wait(left_s)

    def _step(self, task: IdleTask) -> bool:
        """Run a task; whether it is still due."""
        try:
            return task.run(self._pause)
        except Cancelled:
            return True
        except (BusyError, sqlite3.OperationalError):  # another process is at it
            pass
        except (EdgeSpecError, OSError, ValueError, MemoryError, *DAMAGE) as error:
            self._tasks.remove(task)
            self._report(f"{task.name} no more in this run: {error}")
        return False


class _Answering:
    """Implements `edgespec.protocols.Observation`: an answer for which work waits."""

    def __init__(self, worker: IdleWorker) -> None:
        self._worker = worker

    def take(self, kept: Kept) -> None:
        """Passes are of no interest."""

    def close(self, _completion: Completion | None) -> None:
        """The answer is over."""
        self._worker.finish()


class _Pause:
    """Implements `edgespec.pauses.Pause` for the worker's thread."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.num_answers = 0
        self.is_over = False
        self._computing: list[Abortable] = []

    @property
    def is_asked(self) -> bool:
        """Whether the work is to end."""
        return self.num_answers > 0 or self.is_over

    def __call__(self) -> None:
        if self.is_asked:
            raise Cancelled

    @contextlib.contextmanager
    def aborting(self, computing: Abortable) -> Iterator[None]:
        with self.changed:
            self()
            self._computing.append(computing)
        try:
            yield
        finally:
            with self.changed:
                self._computing.remove(computing)
                computing.resume()

    def abort(self) -> None:
        """End the passes under way; called with the lock."""
        for computing in self._computing:
            computing.abort()
