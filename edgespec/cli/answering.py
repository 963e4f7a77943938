"""Run one answer in a thread, so that Ctrl-C and SIGTERM take effect at once.

Python runs signal handlers between byte codes of the main thread. A main thread that waits inside
llama.cpp would notice a signal only when the pass is over, for a prefill seconds later.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator

from edgespec.protocols import Completer
from edgespec.types import Chunk, CompletionRequest


def stream_in_thread(completer: Completer, request: CompletionRequest) -> Generator[Chunk]:
    """Yield the chunks of `completer.stream(request)`; errors are raised here.

    An exception in the caller's thread (Ctrl-C among them) or closing the iterator cancels the
    answer and waits until the worker is out of the native library.
    """
    arrivals: queue.SimpleQueue[Chunk | BaseException | None] = queue.SimpleQueue()

    def work() -> None:
        try:
            for chunk in completer.stream(request):
                arrivals.put(chunk)
            arrivals.put(None)
        except BaseException as error:  # noqa: BLE001 - handed over and raised in the main thread
            arrivals.put(error)

    worker = threading.Thread(target=work, name="answer", daemon=True)
    worker.start()
    try:
        while (arrival := arrivals.get()) is not None:
            if isinstance(arrival, BaseException):
                raise arrival
            yield arrival
    finally:
        while worker.is_alive():  # a cancel that comes before the first pass would be lost
            completer.cancel()
            worker.join(timeout=0.02)
