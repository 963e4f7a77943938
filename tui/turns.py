"""What waits for the disk, one after the other, while keys are taken and the screen is drawn.

A handler that waited itself would hold up all other messages of the app, keys included.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

Turn = Callable[[], Awaitable[object]]


class Turns:
    """A queue of things to do and the one task that does them, in order."""

    def __init__(self, on_slow: Callable[[], object], slow_s: float = 0.5) -> None:
        """`on_slow` is called when one takes longer than `slow_s` seconds."""
        self._turns: asyncio.Queue[Turn] = asyncio.Queue()
        self._on_slow = on_slow
        self._slow_s = slow_s

    def add(self, turn: Turn) -> None:
        """Do this after all that was added before."""
        self._turns.put_nowait(turn)

    async def run(self) -> None:
        """Do what is added, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            turn = await self._turns.get()
            slow = loop.call_later(self._slow_s, self._on_slow)
            try:
                await turn()
            finally:
                slow.cancel()
