"""Draws the README's picture of the chat: `python chat_picture.py FILE`, as `make picture` does.

The conversation is scripted, so that the picture is the same wherever it is drawn.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tui_support import ScriptedCompleter, ask, ready, screen, transcript, until

from edgespec.tui import ChatApp
from edgespec.types import (
    Chunk,
    CompletionRequest,
    DrafterCounts,
    DrafterInsight,
    Insight,
    SpeculationStats,
)

SIZE = (132, 34)
FIRST = """\
```python
def mean(values):
    total = 0
    for value in values:
        total += value
    return total / len(values)
```
"""
SECOND = """\
An empty list has no mean, so the function says so:

```python
def mean(values: list[float]) -> float:
    if not values:
        raise ValueError("no values")
    total = 0.0
    for value in values:
        total += value
    return total / len(values)
```
"""
OWN_WORDS = {"An", "has", "says", "if", "raise", "0.0", "->"}
"""What nothing guessed before the model said it."""


def source_of(word: str, _number: int) -> str:
    """Copies come from the conversation, other words from the drafter."""
    if word.strip() in OWN_WORDS:
        return "target"
    return "context" if word.strip() in FIRST.split() else "smollm2-135m"


class PictureCompleter(ScriptedCompleter):
    """Counts what each source gave, and takes longer for the first answer than for the second."""

    def insight(self) -> Insight:
        drafters = (DrafterInsight("smollm2-135m", DrafterCounts(), 3.4, None, 60_000_000),)
        return Insight({1: 50.0, 2: 53.0, 4: 58.0, 8: 73.0, 16: 118.0}, 0, drafters)

    def _say(
        self, request: CompletionRequest, index: int, cancelled: threading.Event
    ) -> Iterator[Chunk]:
        counts: Counter[str] = Counter()
        for chunk in super()._say(request, index, cancelled):
            counts.update(span.source for span in chunk.spans)
            assert chunk.timings is not None
            slower = chunk.timings.decode_ms * (1.5, 1.0)[index]
            timings = replace(chunk.timings, decode_ms=slower)
            told = {"stats": stats_of(counts), "timings": timings}
            completion = replace(chunk.completion, **told) if chunk.completion else None  # type: ignore[arg-type]
            yield replace(chunk, **told, completion=completion)  # type: ignore[arg-type]


def stats_of(counts: Counter[str]) -> SpeculationStats:
    """Three of four guesses were right, and a pass gave three words."""
    by_drafter = {
        name: DrafterCounts(proposed=4 * kept // 3, accepted=kept)
        for name, kept in counts.items()
        if name != "target"
    }
    return SpeculationStats(counts.total(), counts.total() // 3 + 1, by_drafter)


async def picture() -> str:
    """The chat after two answers, with sources and figures shown, as SVG."""
    app = ChatApp(PictureCompleter(FIRST, SECOND, sources=source_of))
    async with app.run_test(size=SIZE) as pilot:
        app.theme = "textual-dark"
        await ready(pilot)
        await ask(pilot, "Write a Python function for the mean of some numbers.")
        await ask(pilot, "What if there are none? Add types, too.")
        await pilot.press("f3", "f2")
        await until(pilot, lambda: "50" in screen(pilot) and "■ drafter" in screen(pilot))
        await until(pilot, lambda: not any(transcript(pilot)._column.estimated()))
        await pilot.pause()
        return app.export_screenshot(title="edgespec chat")


def main() -> None:
    """Write the picture to the file that is named."""
    os.environ.pop("NO_COLOR", None)
    Path(sys.argv[1]).write_text(asyncio.run(picture()), encoding="utf-8")


if __name__ == "__main__":
    main()
