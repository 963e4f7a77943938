"""Pauses for idle work under test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edgespec.errors import Cancelled
from edgespec.pauses import Abortable


class Asking:
    """Implements `edgespec.pauses.Pause`: asks a function, which may raise."""

    def __init__(self, ask: Callable[[], None] = lambda: None) -> None:
        self._ask = ask
        self.computing: list[Abortable] = []

    def __call__(self) -> None:
        self._ask()

    @contextmanager
    def aborting(self, computing: Abortable) -> Iterator[None]:
        self.computing.append(computing)
        yield
        self.computing.remove(computing)


class After(Asking):
    """Ends work at the call after so many; counts them."""

    def __init__(self, num_calls: int) -> None:
        super().__init__(self._count)
        self.num_left = num_calls
        self.num_calls = 0

    def _count(self) -> None:
        self.num_calls += 1
        if self.num_calls > self.num_left:
            raise Cancelled
