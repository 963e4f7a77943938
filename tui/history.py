"""Messages sent before, to be recalled into the input as in a shell."""

from __future__ import annotations

from collections.abc import Iterable


class InputHistory:
    """A list of sent messages and a position in it; past the newest one is the empty input."""

    def __init__(self, initial: Iterable[str] = ()) -> None:
        """`initial` are messages of earlier chats, the oldest first."""
        self._sent = list(initial)
        self._position = len(self._sent)

    @property
    def current(self) -> str:
        """The message at the position, "" past the newest."""
        return self._sent[self._position] if self._position < len(self._sent) else ""

    def add(self, message: str) -> None:
        """Append a sent message (a repeat of the newest counts once) and return past the newest."""
        if not self._sent or self._sent[-1] != message:
            self._sent.append(message)
        self.leave()

    def extend_left(self, earlier: Iterable[str]) -> None:
        """Put older messages before those that are there."""
        before = list(earlier)
        self._sent[:0] = before
        self._position += len(before)

    def leave(self) -> None:
        """Go past the newest."""
        self._position = len(self._sent)

    def older(self) -> str:
        """Go one back, staying at the oldest, and return the message there."""
        self._position = max(0, self._position - 1)
        return self.current

    def newer(self) -> str:
        """Go one forward, at most past the newest, and return what is there."""
        self._position = min(len(self._sent), self._position + 1)
        return self.current
