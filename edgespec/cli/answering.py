"""Compute in a thread, so that Ctrl-C and SIGTERM take effect at once.

Python runs signal handlers between byte codes of the main thread. A main thread that waits inside
llama.cpp would notice a signal only when the pass is over, for a prefill seconds later.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class InThread(Generic[Item]):
    """The items of an iterable that a worker thread computes; what it raises is raised here.

    Leaving the `with` block, by an exception or not, cancels what is under way and waits until the
    worker is out of the native library. An interrupt may be caught inside the block: after `stop`,
    iterating again yields what was computed before the cancel took effect.
    """

    def __init__(
        self, compute: Callable[[threading.Event], Iterable[Item]], cancel: Callable[[], None]
    ) -> None:
        """`compute` is called in the worker, with an event that is set when it should end.

        `cancel` ends the item under way, and what may follow it, from any thread.
        """
        self._compute = compute
        self._cancel = cancel
        self._stopped = threading.Event()
        self._arrivals: queue.SimpleQueue[Item | _End] = queue.SimpleQueue()
        self._ended = False
        self._worker = threading.Thread(target=self._work, name="answer", daemon=True)

    def __enter__(self) -> InThread[Item]:
        self._worker.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def __iter__(self) -> Iterator[Item]:
        while not self._ended:
            arrival = self._arrivals.get()
            if not isinstance(arrival, _End):
                yield arrival
                continue
            self._ended = True
            if arrival.error is not None:
                raise arrival.error

    def stop(self) -> None:
        """Cancel what is under way and wait until the worker has ended."""
        self._stopped.set()
        if self._worker.is_alive():
            self._cancel()
            self._worker.join()

    def _work(self) -> None:
        end = _End()
        try:
            for item in self._compute(self._stopped):
                self._arrivals.put(item)
        except BaseException as error:  # noqa: BLE001 - handed over and raised in the main thread
            end = _End(error)
        self._arrivals.put(end)


class _End:
    """Follows the last item: the worker is done, or `error` ended it."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
