"""One answer at a time, first come first served, in one thread of its own.

The completer blocks between chunks and may run one answer only, so all of `stream` (and the end of
its iterator) happens in the worker thread. The event loop talks to it through three things:

- `AnswerQueue` holds the answers that wait, bounded, behind a lock; a lock is never held while
  the completer computes.
- Chunks cross to the event loop by `call_soon_threadsafe` into the answer's own queue.
- `completer.cancel` ends the answer that runs. It does nothing before the completer has really
  started, so it is repeated until the worker thread says that the answer is over; it is called
  with the lock held and only if that answer still runs, so it can never hit the next one.

The reason of an early end is delivered before the cancel, so it arrives ahead of the cancel's own
effects. Rules: an answer is waiting, running or over, in that order. Whoever stops listening calls
`abandon`: a waiting answer loses its place, a running one is cancelled, one that is over is left
alone.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import AsyncIterator

from edgespec.errors import EdgeSpecError
from edgespec.protocols import Completer
from edgespec.server.errors import ApiError, BusyApiError, to_api_error
from edgespec.types import Chunk, CompletionRequest

_CANCEL_INTERVAL_S = 0.02
_MAX_RETRY_AFTER_S = 60
_log = logging.getLogger("edgespec.server")


class Answer:
    """A place in the queue, and then the chunks that arrive in it."""

    def __init__(self, request: CompletionRequest, loop: asyncio.AbstractEventLoop) -> None:
        """Chunks are delivered on `loop`."""
        self.request = request
        self.loop = loop
        self.abandoned = False
        self._arrived: asyncio.Queue[Chunk | Exception | None] = asyncio.Queue()

    def deliver(self, item: Chunk | Exception | None) -> None:
        """Hand over a chunk, what went wrong, or None for the end; from any thread."""
        try:
            self.loop.call_soon_threadsafe(self._arrived.put_nowait, item)
        except RuntimeError:
            # The event loop is closed: the server has ended and nobody listens any more.
            self.abandoned = True

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
        self._waiting: deque[Answer] = deque()
        self._running: Answer | None = None
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

    def submit(self, request: CompletionRequest) -> Answer:
        """Queue `request` for the running event loop; raises BusyError when no place is free."""
        answer = Answer(request, asyncio.get_running_loop())
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

    def abandon(self, answer: Answer, reason: Exception | None = None) -> None:
        """End `answer` in whatever state it is and give its listener `reason`; on its loop."""
        with self._changed:
            if answer in self._waiting:
                self._waiting.remove(answer)
            elif self._running is not answer:
                return
            if reason is not None:
                answer.deliver(reason)
            if self._cancel(answer):
                answer.loop.call_later(_CANCEL_INTERVAL_S, self.abandon, answer)

    def stop(self) -> None:
        """End every answer and take no more; the thread ends as soon as the completer lets go."""
        with self._changed:
            if self._stopping:
                return
            self._stopping = True
            for answer in self._waiting:
                answer.deliver(_stopping())
            self._waiting.clear()
            if self._running is not None:
                self._running.deliver(_stopping())
                self._cancel(self._running)
            self._changed.notify()

    def join(self, timeout_s: float) -> bool:
        """After `stop`, wait for the thread to end and keep cancelling; True if it did."""
        deadline = time.monotonic() + timeout_s
        while self._thread.is_alive() and time.monotonic() < deadline:
            with self._changed:
                if self._running is not None:
                    self._cancel(self._running)
            self._thread.join(_CANCEL_INTERVAL_S)
        return not self._thread.is_alive()

    def _cancel(self, answer: Answer) -> bool:
        """Cancel `answer` if it runs; the lock is held."""
        if self._running is not answer:
            return False
        answer.abandoned = True
        self._completer.cancel()
        return True

    def _work(self) -> None:
        while (answer := self._next()) is not None:
            started = time.monotonic()
            error = self._compute(answer)
            with self._changed:
                self._running = None
                self._last_duration_s = time.monotonic() - started
            answer.deliver(error)

    def _next(self) -> Answer | None:
        with self._changed:
            while not self._waiting and not self._stopping:
                self._changed.wait()
            if self._stopping:
                return None
            self._running = self._waiting.popleft()
            return self._running

    def _compute(self, answer: Answer) -> Exception | None:
        """Deliver the chunks of `answer`, to its end or until it is abandoned."""
        try:
            chunks = self._completer.stream(answer.request)
            try:
                for chunk in chunks:
                    if answer.abandoned:
                        break
                    answer.deliver(chunk)
            finally:
                if (close := getattr(chunks, "close", None)) is not None:
                    close()
        except EdgeSpecError as error:
            return error
        except Exception as error:  # noqa: BLE001 - a bug fails one answer, not the thread
            _log.error("an answer failed: %r", error)
            return to_api_error(error)
        return None


def _stopping() -> ApiError:
    return ApiError(503, "the server is stopping", code="server_stopping")
