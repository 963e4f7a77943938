"""One answer while it streams: what came of it, where it goes, when it was last kept."""

from __future__ import annotations

import time
from collections.abc import Sequence

from edgespec.tui.session import Asked
from edgespec.tui.worker import Job
from edgespec.types import Chunk, Span

_KEPT_EVERY_S = 1.0


class LiveAnswer:
    """Text and sources so far, an answer's beginning included where it is continued."""

    def __init__(self, job: Job, asked: Asked) -> None:
        self.job = job
        self.asked = asked
        self.text = asked.text
        self.sources = list(asked.sources)
        self.started_at = time.monotonic()
        self._kept_at = self.started_at
        self._kept_length = len(self.text)

    @property
    def key(self) -> str:
        """Its entry in the transcript."""
        return str(self.asked.answer)

    def take(self) -> tuple[str, tuple[Span, ...], Chunk | None]:
        """What came since the last time, and the newest chunk for its numbers."""
        progress = self.job.take()
        self.text += progress.text
        merge(self.sources, progress.spans)
        return progress.text, progress.spans, progress.latest

    def is_to_be_kept(self) -> bool:
        """Whether it is a second since something of it was last written down."""
        now = time.monotonic()
        if len(self.text) == self._kept_length or now - self._kept_at < _KEPT_EVERY_S:
            return False
        self._kept_at, self._kept_length = now, len(self.text)
        return True


def merge(sources: list[tuple[int, str]], spans: Sequence[Span]) -> None:
    """Append spans; neighbours of one source become one.

    >>> sources = [(3, "target")]
    >>> merge(sources, [Span(2, "target"), Span(1, "context"), Span(0, "x")])
    >>> sources
    [(5, 'target'), (1, 'context')]
    """
    for span in spans:
        if sources and sources[-1][1] == span.source:
            sources[-1] = (sources[-1][0] + span.length, span.source)
        elif span.length:
            sources.append((span.length, span.source))
