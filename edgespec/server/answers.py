"""Several answers at a time, first come first served, each in a thread of its own.

An answer is iterated by a worker thread; there are as many of these as answers may run at a time.
The event loop talks to them through three things:

- `AnswerQueue` holds the answers that wait, bounded, behind a lock; a lock is never held while
  the completer computes.
- Chunks cross to the event loop by `call_soon_threadsafe` into the answer's own queue.
- The handle of an answer that runs (`edgespec.protocols.Answer`) is cancelled, at any time.

The reason of an early end is delivered before the cancel, so it arrives ahead of the cancel's own
effects. Rules: an answer is waiting, running or over, in that order. Whoever stops listening calls
`abandon`: a waiting answer loses its place, a running one is cancelled, one that is over is left
alone. When the server ends, `drain` sends away who waits and `stop` cuts what runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import math
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable

from edgespec.errors import EdgeSpecError
from edgespec.protocols import Answer, Completer
from edgespec.server.errors import ApiError, BusyApiError, to_api_error
from edgespec.types import Chunk, CompletionRequest

_MAX_RETRY_AFTER_S = 600
_NEWEST_SHARE = 0.25
"""How much the last answer moves what an answer is expected to take."""

_log = logging.getLogger("edgespec.server")


class Queued:
    """A request with its place in the queue, and then the chunks that arrive in it."""

    def __init__(self, request: CompletionRequest, loop: asyncio.AbstractEventLoop) -> None:
        """Chunks are delivered on `loop`."""
        self.request = request
        self.began_at = 0.0
        self.handle: Answer | None = None
        self._loop = loop
        self._arrived: asyncio.Queue[Chunk | Exception | None] = asyncio.Queue()
        self._has_said = False
        self._is_cut = False

    def deliver(self, item: Chunk | Exception | None) -> None:
        """Hand over a chunk, what went wrong, or None for the end; from any thread."""
        if isinstance(item, Chunk):
            self._has_said |= item.progress is None
            if self._is_cut:
                item = _as_cut(item)
        # Where the event loop is closed, the server has ended and nobody listens any more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._arrived.put_nowait, item)

    def cut(self) -> None:
        """The server ends: what was said stands, as if a limit had come; else the client is told.

        From here on only the end of the answer is to be delivered.
        """
        self._is_cut = True
        if not self._has_said:
            self.deliver(stopping())

    async def chunks(self) -> AsyncIterator[Chunk]:
        """Yield chunks as they arrive; raises what the completer raised, or why it was ended."""
        while (item := await self._arrived.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item


def _as_cut(chunk: Chunk) -> Chunk:
    done = chunk.completion
    if done is None or done.finish_reason != "cancelled":
        return chunk
    return dataclasses.replace(chunk, completion=dataclasses.replace(done, finish_reason="length"))


class AnswerQueue:
    """Runs answers, `slots` at a time, in worker threads that `start` begins and `stop` ends."""

    def __init__(
        self,
        completer: Completer,
        max_waiting: int,
        slots: int = 1,
        note: Callable[[CompletionRequest], None] = lambda _request: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`max_waiting` answers may wait beside those that run; `note` is told of each request.

        `clock` gives seconds.
        """
        self._completer = completer
        self._max_waiting = max_waiting
        self._slots = slots
        self._note = note
        self._clock = clock
        self._changed = threading.Condition()
        self._waiting: deque[Queued] = deque()
        self._running: list[Queued] = []
        self._stopping = False
        self._usual_s: float | None = None
        self._threads = [
            threading.Thread(target=self._work, name=f"edgespec-answers-{number}", daemon=True)
            for number in range(slots)
        ]

    @property
    def num_waiting(self) -> int:
        """Answers that wait for their turn."""
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Answers that are being computed."""
        return len(self._running)

    @property
    def is_answering(self) -> bool:
        """True while an answer is being computed."""
        return bool(self._running)

    @property
    def is_busy(self) -> bool:
        """True while an answer runs or waits."""
        with self._changed:
            return bool(self._running or self._waiting)

    def start(self) -> None:
        """Begin to work; once."""
        for thread in self._threads:
            thread.start()

    def submit(self, request: CompletionRequest) -> Queued:
        """Queue `request` for the running event loop; raises BusyError when no place is free."""
        answer = Queued(request, asyncio.get_running_loop())
        with self._changed:
            if self._stopping:
                raise stopping()
            if len(self._waiting) + len(self._running) >= self._max_waiting + self._slots:
                raise BusyApiError(
                    f"the model is busy and all {self._max_waiting} places in the queue are taken",
                    "try again later",
                    min(max(math.ceil(self._until_free_s()), 1), _MAX_RETRY_AFTER_S),
                )
            self._waiting.append(answer)
            self._changed.notify()
        self._note(request)
        return answer

    def abandon(self, answer: Queued, reason: Exception | None = None) -> None:
        """End `answer` in whatever state it is and give its listener `reason`."""
        with self._changed:
            if answer in self._waiting:
                self._waiting.remove(answer)
            elif answer not in self._running:
                return
            if reason is not None:
                answer.deliver(reason)
            if answer.handle is not None:
                answer.handle.cancel()

    def drain(self) -> None:
        """Take no more answers and send away those that wait; what runs goes on."""
        with self._changed:
            self._stopping = True
            for answer in self._waiting:
                answer.deliver(stopping())
            self._waiting.clear()
            self._changed.notify_all()

    def stop(self) -> None:
        """The same, and cut what runs; threads end as soon as the completer lets go."""
        self.drain()
        with self._changed:
            for answer in self._running:
                answer.cut()
                if answer.handle is not None:
                    answer.handle.cancel()

    def join(self, timeout_s: float) -> bool:
        """After `stop`, wait for the threads to end; True if they did."""
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(deadline - time.monotonic(), 0.0))
        return not any(thread.is_alive() for thread in self._threads)

    def _until_free_s(self) -> float:
        """When one of those that run is expected to end; they take turns, the lock is held.

        What usually runs an answer is told by those that are over, and by those that run if these
        take longer.
        """
        now = self._clock()
        ages = [now - answer.began_at for answer in self._running]
        if not ages:
            return self._usual_s or 0.0
        return max(self._usual_s or 0.0, sum(ages) / len(ages)) / len(ages)

    def _work(self) -> None:
        while (answer := self._next()) is not None:
            error = _compute(answer)
            with self._changed:
                self._running.remove(answer)
                took_s = self._clock() - answer.began_at
                usual_s = took_s if self._usual_s is None else self._usual_s
                self._usual_s = usual_s + _NEWEST_SHARE * (took_s - usual_s)
            answer.deliver(error)

    def _next(self) -> Queued | None:
        with self._changed:
            while not self._waiting and not self._stopping:
                self._changed.wait()
            if self._stopping:
                return None
            answer = self._waiting.popleft()
            answer.began_at = self._clock()
            answer.handle = self._completer.answer(answer.request)
            self._running.append(answer)
            return answer


def _compute(answer: Queued) -> Exception | None:
    """Deliver the chunks of `answer` to its end."""
    assert answer.handle is not None
    try:
        for chunk in answer.handle:
            answer.deliver(chunk)
    except EdgeSpecError as error:
        return error
    except Exception as error:  # noqa: BLE001 - a bug fails one answer, not the thread
        _log.error("an answer failed: %s", type(error).__name__)
        return to_api_error(error)
    return None


def stopping() -> ApiError:
    """What clients are told that come, or wait, while the server ends."""
    return ApiError(503, "the server is stopping", code="server_stopping")
