"""An answer for completers of tests: a generator of chunks that hears of a cancel."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from edgespec.types import Chunk


class GeneratedAnswer:
    """Implements `edgespec.protocols.Answer`; `generate` is given an event that a cancel sets."""

    def __init__(self, generate: Callable[[threading.Event], Iterator[Chunk]]) -> None:
        self.cancelled = threading.Event()
        self._chunks = generate(self.cancelled)

    def __iter__(self) -> Iterator[Chunk]:
        return self

    def __next__(self) -> Chunk:
        return next(self._chunks)

    def cancel(self) -> None:
        self.cancelled.set()

    def close(self) -> None:
        self.cancel()
        for _ in self:
            pass
