"""How often the screen may be redrawn while an answer streams.

The cores belong to the model. A redraw costs one to some tens of milliseconds, more the longer the
block of Markdown that is being written, so no fixed rate is right: after a redraw that cost c
milliseconds of the screen thread's own CPU time, the next waits until c is `max_share` of the time
between them, within `min_interval` and `max_interval`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

SMOOTHING = 0.3
"""Weight of the newest redraw in the running mean of their costs."""


class Pacer:
    """Tells how long to wait before the next redraw; times are in seconds.

    >>> wall, cpu = iter([0.0, 0.0]), iter([0.0])
    >>> pacer = Pacer(clock=lambda: next(wall), cpu_clock=lambda: next(cpu))
    >>> pacer.redraw()
    >>> pacer.delay()
    0.05
    """

    def __init__(
        self,
        min_interval: float = 0.05,
        max_interval: float = 0.4,
        max_share: float = 0.02,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._min_interval = min_interval
        self._max_interval = max_interval
        self._max_share = max_share
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._last: tuple[float, float] | None = None
        self._mean_cost = 0.0

    @property
    def interval(self) -> float:
        """Seconds from one redraw to the next at the present cost."""
        return min(self._max_interval, max(self._min_interval, self._mean_cost / self._max_share))

    def begin(self) -> None:
        """Start an answer: its first redraw is free, and CPU time spent till now is not its own."""
        self._last = None

    def delay(self) -> float:
        """Seconds until the next redraw is due, 0 if it is."""
        if self._last is None:
            return 0.0
        return max(0.0, self._last[0] + self.interval - self._clock())

    def redraw(self) -> None:
        """Note that a redraw starts now; what was spent since the last one was the last one's."""
        now, spent = self._clock(), self._cpu_clock()
        if self._last is not None:
            cost = spent - self._last[1]
            self._mean_cost += SMOOTHING * (cost - self._mean_cost)
        self._last = (now, spent)
