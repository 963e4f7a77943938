"""Bracketed pastes out of a terminal's input, at the speed of the input."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from textual import events
from textual._xterm_parser import XTermParser
from textual.message import Message

PASTE_BEGINS, PASTE_ENDS = "\x1b[200~", "\x1b[201~"
MAX_PASTE = 16 << 20
"""Characters of a paste that are kept; whoever gets it sees that it is too long."""


class PasteParser(XTermParser):
    """Textual's parser, with the text of bracketed pastes taken past it.

    It reads each character through a generator: ten megabytes would keep the keyboard, and through
    the interpreter's lock the screen, for half a minute. It still gets both marks of a paste, so
    it knows where it stands.
    """

    def __init__(self, debug: bool = False) -> None:
        super().__init__(debug)
        self._before = ""
        self._paste: list[str] | None = None
        self._num_pasted = 0

    def feed(self, data: str) -> Iterable[Message]:
        """Events from `data`, which may begin and end anywhere; "" is the end of all input."""
        if not data:
            yield from super().feed(data)
        while data:
            if self._paste is None:
                keys, begins, data = self._until(PASTE_BEGINS, data)
                if keys:
                    yield from super().feed(keys)
                if begins:
                    self._paste, self._num_pasted = [], 0
            else:
                text, ends, data = self._until(PASTE_ENDS, data)
                self._keep(text)
                if ends:
                    yield from self._end_paste()

    def _until(self, mark: str, data: str) -> tuple[str, bool, str]:
        """`data` up to and with `mark`, whether it came, and what follows.

        The mark may have begun in what came before.
        """
        joined = self._before + data
        found = joined.find(mark)
        if found < 0:
            self._before = joined[-(len(mark) - 1) :]
            return data, False, ""
        end = found + len(mark) - len(self._before)
        self._before = ""
        return data[:end], True, data[end:]

    def _keep(self, text: str) -> None:
        assert self._paste is not None
        self._num_pasted += len(text)
        if self._num_pasted <= MAX_PASTE or not self._paste:
            self._paste.append(text)

    def _end_paste(self) -> Iterator[Message]:
        text = "".join(self._paste or ()).removesuffix(PASTE_ENDS).replace("\x00", "")
        self._paste = None
        for event in super().feed(PASTE_ENDS):
            # The parser's own paste is empty, as it was given no text.
            yield events.Paste(text) if isinstance(event, events.Paste) else event
