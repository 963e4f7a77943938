"""Token bytes to text that may be shown: whole characters, and nothing of a stop string.

Bytes that end inside a UTF-8 character are held back until the rest comes; so is text that may be
the beginning of a stop string. Bytes that can never become UTF-8 are shown as U+FFFD. The stop
string that is complete first ends the text, so the text does not depend on where tokens are cut.

>>> stream = TextStream(("END",))
>>> [stream.push(piece) for piece in (b"caf\\xc3", b"\\xa9 E", b"NOW EN", b"D of")]
['caf', 'é ', 'ENOW ', '']
>>> stream.stopped
True
"""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Sequence

from edgespec.types import TARGET, Span


class TextStream:
    """Feeds on token bytes; `stopped` turns True at the first stop string, which is then `stop`.

    `num_characters` is how many were pushed, whether they were returned or not.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        """`stops` are the strings that end the text and are not part of it; empty ones never do."""
        self._stops = tuple(stop for stop in stops if stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self._sources: deque[Span] = deque()  # of the characters that are held, and then released
        self.stopped = False
        self.stop: str | None = None
        self.num_characters = 0

    @property
    def is_whole(self) -> bool:
        """Whether the bytes so far do not end inside a character."""
        return not self._decoder.getstate()[0]

    def push(self, piece: bytes, source: str = TARGET) -> str:
        """Take one token's bytes and return the text that has become certain.

        A character is of the `source` whose bytes complete it.
        """
        if self.stopped:
            return ""
        self._hold(self._decoder.decode(piece), source)
        return self._stop() or self._release(self._unsettled())

    def finish(self, *, is_cut: bool = False) -> str:
        """Return what was held back, at the end of the answer.

        A character that is not whole becomes U+FFFD, or nothing where the text `is_cut`.
        """
        if self.stopped:
            return ""
        self._hold("" if is_cut else self._decoder.decode(b"", final=True), TARGET)
        return self._stop() or self._release(0)

    def take_spans(self, length: int) -> tuple[Span, ...]:
        """The sources of the next `length` characters of what was returned."""
        spans: list[Span] = []
        while length > 0 and self._sources:
            span = self._sources.popleft()
            taken = min(span.length, length)
            if spans and spans[-1].source == span.source:
                spans[-1] = Span(spans[-1].length + taken, span.source)
            else:
                spans.append(Span(taken, span.source))
            if taken < span.length:
                self._sources.appendleft(Span(span.length - taken, span.source))
            length -= taken
        return tuple(spans)

    def _hold(self, text: str, source: str) -> None:
        if text:
            self._held += text
            self._sources.append(Span(len(text), source))
            self.num_characters += len(text)

    def _stop(self) -> str:
        """If the held text has a stop string, take what is before it; empty if it has none."""
        found = [
            (at + len(stop), at, stop) for stop in self._stops if (at := self._held.find(stop)) >= 0
        ]
        if not found:
            return ""
        self.stopped = True
        _, start, self.stop = min(found)
        text, self._held = self._held[:start], ""
        return text

    def _unsettled(self) -> int:
        """Length of the longest end of the held text that begins a stop string."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0

    def _release(self, num_held: int) -> str:
        cut = len(self._held) - num_held
        text, self._held = self._held[:cut], self._held[cut:]
        return text
