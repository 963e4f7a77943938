"""One answer while it streams: from its job onto the screen."""

from __future__ import annotations

from edgespec.tui.transcript import Answer, Transcript
from edgespec.tui.worker import Job
from edgespec.types import Chunk


class LiveAnswer:
    """Draws what a job brings; the answer's place in the transcript is made by its first text."""

    def __init__(self, job: Job, transcript: Transcript) -> None:
        self.job = job
        self.text = ""
        self._transcript = transcript
        self._widget: Answer | None = None

    @property
    def stopping(self) -> bool:
        """True once a stop was asked for."""
        return self.job.is_cancelled

    async def draw(self) -> Chunk | None:
        """Draw what came since the last time; returns the newest chunk, for its numbers."""
        progress = self.job.take()
        if progress.text:
            if self._widget is None:
                self._widget = await self._transcript.answer()
            self.text += progress.text
            await self._widget.grow(progress.text)
        return progress.latest

    async def settle(self, text: str) -> None:
        """Draw what is left; the answer has ended and is `text`."""
        await self.draw()
        if self._widget is not None:
            await self._widget.settle(text)
