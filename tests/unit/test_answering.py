"""Answers computed in a thread: each item arrives once, in order; nothing outlives the block."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from edgespec.cli.answering import InThread


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "answer"]


class Counting:
    """Counts upwards in a thread until cancelled; each number but the first takes `gap_s`."""

    def __init__(self, gap_s: float = 0.001) -> None:
        self.thread: threading.Thread | None = None
        self.num_cancels = 0
        self.ended = False
        self._gap_s = gap_s
        self._cancelled = threading.Event()

    def count(self, _stopped: threading.Event) -> Iterator[int]:
        self.thread = threading.current_thread()
        try:
            for number in itertools.count():
                yield number
                if self._cancelled.wait(self._gap_s):
                    yield -1
                    return
        finally:
            self.ended = True

    def cancel(self) -> None:
        self.num_cancels += 1
        self._cancelled.set()


def test_items_arrive_in_order_from_another_thread() -> None:
    seen: list[threading.Thread] = []

    def compute(_stopped: threading.Event) -> Iterator[int]:
        for number in range(1000):
            seen.append(threading.current_thread())
            yield number

    with InThread(compute, cancel=lambda: None) as items:
        assert list(items) == list(range(1000))
        assert list(items) == []  # an end is an end
    assert set(seen).isdisjoint({threading.main_thread()})
    assert not workers()


def test_what_the_worker_raises_is_raised_here_after_what_came_before() -> None:
    class Fault(Exception):
        pass

    def compute(_stopped: threading.Event) -> Iterator[str]:
        yield "before"
        raise Fault("at fault")

    arrived = []
    with (
        pytest.raises(Fault, match="at fault"),
        InThread(compute, cancel=lambda: None) as items,
    ):
        for item in items:
            arrived.append(item)
    assert arrived == ["before"]
    assert not workers()


def test_an_error_in_the_block_waits_for_the_worker_too() -> None:
    """The caller frees the model next: the worker must be out of it."""
    counting = Counting()
    with (
        pytest.raises(BrokenPipeError),
        InThread(counting.count, counting.cancel) as items,
    ):
        for _ in items:
            raise BrokenPipeError
    assert counting.ended and counting.num_cancels >= 1
    assert not workers()


def test_nothing_is_cancelled_when_all_has_arrived() -> None:
    counting = Counting()

    def three(stopped: threading.Event) -> Iterator[int]:
        return itertools.islice(counting.count(stopped), 3)

    with InThread(three, counting.cancel) as items:
        assert list(items) == [0, 1, 2]
        for worker in workers():
            worker.join()
    assert counting.num_cancels == 0


def test_after_a_stop_the_rest_can_be_had() -> None:
    counting = Counting()
    with InThread(counting.count, counting.cancel) as items:
        first = list(itertools.islice(items, 3))
        items.stop()
        rest = list(items)
    assert first == [0, 1, 2]
    assert rest[-1] == -1
    assert rest[:-1] == list(range(3, 3 + len(rest) - 1))


def test_the_event_tells_the_worker_to_end() -> None:
    cancelled = threading.Event()

    def answers(stopped: threading.Event) -> Iterator[str]:
        """Questions that are cancelled one by one; only the event ends the row of them."""
        while not stopped.is_set():
            yield "measured"
            cancelled.wait(0.001)

    with InThread(answers, cancelled.set) as items:
        assert next(iter(items)) == "measured"
    assert not workers()


def test_a_signal_interrupts_the_wait_at_once() -> None:
    """The point of it all: the worker computes on, the main thread hears the signal."""
    counting = Counting(gap_s=30.0)
    sent_at = 0.0

    def interrupt() -> None:
        nonlocal sent_at
        sent_at = time.monotonic()
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(0.05, interrupt)
    timer.start()
    with (
        pytest.raises(KeyboardInterrupt),
        InThread(counting.count, counting.cancel) as items,
    ):
        for _ in items:
            pass
    assert time.monotonic() - sent_at < 5
    assert counting.ended
    timer.join()
