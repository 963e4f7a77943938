"""One answer at a time, first come first served, in one thread of its own.

An answer is iterated by the worker thread. The event loop talks to it through three things:

- `AnswerQueue` holds the answers that wait, bounded, behind a lock; a lock is never held while
  the completer computes.
- Chunks cross to the event loop by `call_soon_threadsafe` into the answer's own queue.
- The handle of the answer that runs (`edgespec.protocols.Answer`) is cancelled, at any time.

The reason of an early end is delivered before the cancel, so it arrives ahead of the cancel's own
effects. Rules: an answer is waiting, running or over, in that order. Whoever stops listening calls
`abandon`: a waiting answer loses its place, a running one is cancelled, one that is over is left
alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections import deque
from collections.abc import AsyncIterator

from edgespec.errors import EdgeSpecError
from edgespec.protocols import Answer, Completer
from edgespec.server.errors import ApiError, BusyApiError, to_api_error
from edgespec.types import Chunk, CompletionRequest

_MAX_RETRY_AFTER_S = 60
_log = logging.getLogger("edgespec.server")


class Queued:
    """A request with its place in the queue, and then the chunks that arrive in it."""

    def __init__(self, request: CompletionRequest, loop: asyncio.AbstractEventLoop) -> None:
        """Chunks are delivered on `loop`."""
        self.request = request
        self._loop = loop
        self._arrived: asyncio.Queue[Chunk | Exception | None] = asyncio.Queue()

    def deliver(self, item: Chunk | Exception | None) -> None:
        """Hand over a chunk, what went wrong, or None for the end; from any thread."""
        # Where the event loop is closed, the server has ended and nobody listens any more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._arrived.put_nowait, item)

    async def chunks(self) -> AsyncIterator[Chunk]:
        """Yield chunks as they arrive; raises what the completer raised, or why it was ended."""
        while (item := await self._arrived.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item


class AnswerQueue:
    """Runs answers one after another in a worker thread that `start` begins and `stop` ends."""

    def __init__(self, completer: Completer, max_waiting: int) -> None:
        """`max_waiting` answers may wait beside the one that runs."""
        self._completer = completer
        self._max_waiting = max_waiting
        self._changed = threading.Condition()
        self._waiting: deque[Queued] = deque()
        self._running: Queued | None = None
        self._handle: Answer | None = None
        self._stopping = False
        self._last_duration_s = 1.0
        self._thread = threading.Thread(target=self._work, name="edgespec-answers", daemon=True)

    @property
    def num_waiting(self) -> int:
        """Answers that wait for their turn."""
        return len(self._waiting)

    @property
    def is_answering(self) -> bool:
        """True while an answer is being computed."""
        return self._running is not None

    def start(self) -> None:
        """Begin to work; once."""
        self._thread.start()

    def submit(self, request: CompletionRequest) -> Queued:
        """Queue `request` for the running event loop; raises BusyError when no place is free."""
        answer = Queued(request, asyncio.get_running_loop())
        with self._changed:
            if self._stopping:
                raise _stopping()
            if len(self._waiting) + (self._running is not None) > self._max_waiting:
                raise BusyApiError(
                    f"the model is busy and all {self._max_waiting} places in the queue are taken",
                    "try again shortly",
                    min(max(math.ceil(self._last_duration_s), 1), _MAX_RETRY_AFTER_S),
                )
            self._waiting.append(answer)
            self._changed.notify()
        return answer

    def abandon(self, answer: Queued, reason: Exception | None = None) -> None:
        """End `answer` in whatever state it is and give its listener `reason`."""
        with self._changed:
            if answer in self._waiting:
                self._waiting.remove(answer)
            elif self._running is not answer:
                return
            if reason is not None:
                answer.deliver(reason)
            if self._running is answer and self._handle is not None:
                self._handle.cancel()

    def stop(self) -> None:
        """End every answer and take no more; the thread ends as soon as the completer lets go."""
        with self._changed:
            if self._stopping:
                return
            self._stopping = True
            for answer in (*self._waiting, *([self._running] if self._running else [])):
                answer.deliver(_stopping())
            self._waiting.clear()
            if self._handle is not None:
                self._handle.cancel()
            self._changed.notify()

    def join(self, timeout_s: float) -> bool:
        """After `stop`, wait for the thread to end; True if it did."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (next_up := self._next()) is not None:
            answer, handle = next_up
            started = time.monotonic()
            error = _compute(answer, handle)
            with self._changed:
                self._running = self._handle = None
                self._last_duration_s = time.monotonic() - started
            answer.deliver(error)

    def _next(self) -> tuple[Queued, Answer] | None:
        with self._changed:
            while not self._waiting and not self._stopping:
                self._changed.wait()
            if self._stopping:
                return None
            self._running = self._waiting.popleft()
            self._handle = self._completer.answer(self._running.request)
            return self._running, self._handle


def _compute(answer: Queued, handle: Answer) -> Exception | None:
    """Deliver the chunks of `answer` to its end."""
    try:
        for chunk in handle:
            answer.deliver(chunk)
    except EdgeSpecError as error:
        return error
    except Exception as error:  # noqa: BLE001 - a bug fails one answer, not the thread
        _log.error("an answer failed: %r", error)
        return to_api_error(error)
    return None


def _stopping() -> ApiError:
    return ApiError(503, "the server is stopping", code="server_stopping")
