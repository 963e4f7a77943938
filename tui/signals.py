"""Signals that ask the process to end, as an exit status on the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable
from functools import partial

from edgespec.errors import EXIT_INTERRUPTED, EXIT_TERMINATED

EXIT_HUNG_UP = 129
"""Exit status after SIGHUP, the terminal's window closed (128 + 1)."""

EXITS = {"SIGINT": EXIT_INTERRUPTED, "SIGTERM": EXIT_TERMINATED, "SIGHUP": EXIT_HUNG_UP}


def listen(leave: Callable[[int], object]) -> None:
    """Call `leave` with the exit status when one of the signals comes.

    Where a signal does not exist, or the loop cannot handle any (Windows, or a loop outside the
    main thread), Python's own way stays.
    """
    loop = asyncio.get_running_loop()
    for name, exit_code in EXITS.items():
        with contextlib.suppress(AttributeError, NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(getattr(signal, name), partial(leave, exit_code))


def ignore() -> None:
    """Take `listen` back."""
    loop = asyncio.get_running_loop()
    for name in EXITS:
        with contextlib.suppress(AttributeError, NotImplementedError, RuntimeError, ValueError):
            loop.remove_signal_handler(getattr(signal, name))
