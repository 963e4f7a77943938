"""Work for which nobody waits gives way to answers: it asks again and again whether to go on."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Protocol


class Abortable(Protocol):
    """What computes for the work: a context, whose pass can be ended from another thread."""

    def abort(self) -> None:
        """End the pass under way, or the next one."""
        ...

    def resume(self) -> None:
        """Take back an `abort`."""
        ...


class Pause(Protocol):
    """Given to work; to be called every few milliseconds."""

    def __call__(self) -> None:
        """Raise Cancelled when the work is to end, to be taken up again later."""
        ...

    def aborting(self, computing: Abortable) -> AbstractContextManager[None]:
        """In this block the pass under way ends, with Cancelled, when the work is to end."""
        ...


class NoPause:
    """For work in the foreground, which goes on to its end."""

    def __call__(self) -> None:
        """Nothing."""

    def aborting(self, computing: Abortable) -> AbstractContextManager[None]:
        """Nothing."""
        return contextlib.nullcontext()


NO_PAUSE = NoPause()
