"""How a pull tells what it is doing: bytes so far, and now and then a sentence."""

from __future__ import annotations

from typing import Protocol


class PullProgress(Protocol):
    """Shows one pull to a user; called from the pulling thread, often."""

    def begin(self, label: str, total: int | None) -> None:
        """A file of `total` bytes (None if not known) is now being fetched from `label`."""
        ...

    def at(self, num_bytes: int) -> None:
        """`num_bytes` of the file are here; less than before when a source had to start again."""
        ...

    def say(self, text: str) -> None:
        """Something the user should know, in one sentence."""
        ...
