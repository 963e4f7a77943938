"""SIGINT and SIGTERM end a command: once, in good order, and at once where order is impossible.

An exception that a handler raises ends a command well wherever Python code runs. It does not where
the main thread runs native code that calls back into Python (llama.cpp loads a model and logs each
step): ctypes prints and drops it there. Nothing is unsaved at such a time, so the process ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_PATIENCE_S = 2.0
"""How long the first signal has to unwind before a second one ends the process."""

STOPPED = "edgespec: stopped"


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived: unwind as after Ctrl-C, so that nothing half-done stays behind."""


def raise_once() -> None:
    """Let SIGINT raise KeyboardInterrupt and SIGTERM raise Terminated, but only the first of all.

    Those that follow do not disturb the unwinding, unless it takes too long. A signal that the
    parent process chose to ignore (nohup, a background job) stays ignored.
    """
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _unwind)


def ignore() -> None:
    """Ignore both from here on: the command is over and its exit status is decided."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def ending_at_once() -> Iterator[None]:
    """In this block a signal of `raise_once` ends the process where it stands.

    For native code that calls back, in the main thread; in any other thread, where no handler
    runs, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    raising = [number for number in _SIGNALS if signal.getsignal(number) is _unwind]
    for number in raising:
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number in raising:
            signal.signal(number, _unwind)


@contextlib.contextmanager
def noted() -> Iterator[Callable[[], KeyboardInterrupt | None]]:
    """In this block the first signal of `raise_once` is only noted; a second one unwinds.

    Yields what tells the interrupt that was noted. For work that ends in good order by itself.
    """
    interrupts: list[KeyboardInterrupt] = []
    raising = [number for number in _SIGNALS if signal.getsignal(number) is _unwind]

    def restore() -> None:
        for number in raising:
            signal.signal(number, _unwind)

    def note(number: int, _frame: FrameType | None) -> None:
        interrupts.append(Terminated() if number == signal.SIGTERM else KeyboardInterrupt())
        restore()

    for number in raising:
        signal.signal(number, note)
    try:
        yield lambda: interrupts[0] if interrupts else None
    finally:
        restore()


def _unwind(number: int, _frame: FrameType | None) -> NoReturn:
    patience_ends = time.monotonic() + _PATIENCE_S

    def insist(number: int, frame: FrameType | None) -> None:
        if time.monotonic() > patience_ends:
            _end(number, frame)

    for other in _SIGNALS:
        if signal.getsignal(other) is not signal.SIG_IGN:
            signal.signal(other, insist)
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    # Not print: the signal may have come in the middle of another one.
    os.write(2, f"{STOPPED}\n".encode())
    os._exit(128 + number)
