"""What waits for the disk, in one thread, in the order in which it was asked for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar, cast

from edgespec.chats import History

T = TypeVar("T")


class Disk:
    """One thread for the history: a slow or locked disk never holds up the screen."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="history")
        self._is_closed = False

    async def run(self, work: Callable[[], T]) -> T:
        """Do `work` after all that was asked for before, and wait for it.

        Raises what `work` raises, and CancelledError once this is closed.
        """
        if self._is_closed:
            raise asyncio.CancelledError
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def start(self, work: Callable[[], object]) -> Future[object] | None:
        """Do `work` some time soon; None once this is closed."""
        with contextlib.suppress(RuntimeError):  # the app is leaving
            return self._thread.submit(work)
        return None

    def close(self, last: Callable[[], object], timeout_s: float = 2.0) -> None:
        """Do `last` after all else, and wait for it, but no longer than that."""
        future = self.start(last)
        self._is_closed = True
        self._thread.shutdown(wait=False)
        if future is not None:
            with contextlib.suppress(Exception):  # what cannot be kept was told before
                future.result(timeout_s)


class _Late:
    def __init__(self, open_history: Callable[[], History]) -> None:
        self._open = open_history
        self._opened: History | None = None

    def __getattr__(self, name: str) -> object:
        if self._opened is None:
            self._opened = self._open()
        return getattr(self._opened, name)


def opened_late(open_history: Callable[[], History]) -> History:
    """A history that is opened when it is first asked for something, as this waits for the disk.

    Whatever is asked of it may raise what `open_history` does; it is then opened the next time.
    """
    return cast("History", _Late(open_history))
