"""What drawing the conversation costs, for any commit's transcript, without a terminal.

    python research/redraw_cost.py [--answers 20] [--words 3] [--rounds 3]

An answer with lists, tables and code streams word by word, with a redraw after each 50 ms worth of
them (three words), below `--answers` long answers: CPU time of the screen's thread for each redraw,
handing the text over and all that Textual does until it is idle again. Then the window takes eight
widths, each until the app is idle: seconds in all, and CPU time of the slowest. Works with this
transcript, and with the one before it, which had a widget for each block.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from typing import Any

from textual.app import App, ComposeResult

import edgespec.tui.app as chat
from edgespec.tui.transcript import Transcript

SIZE = (120, 40)
WIDTHS = (110, 100, 90, 80, 70, 84, 102, 120)
ANSWER = """\
## Searching

A **binary search** halves the range until the value is found, which takes `O(log n)` steps. It
needs the values in *order*, and a way to get at the middle one at once.

1. Look at the middle value of the range that is left.
2. If it is the one that is wanted, stop.
   - A copy of it may stand before it.
   - For the first one, go on to the left.
3. Otherwise keep the half that can hold it, and begin anew.
4. Stop when the range is empty.

| n | steps | linear |
|---|-------|--------|
| 10 | 4 | 10 |
| 1,000 | 10 | 1,000 |
| 1,000,000 | 20 | 1,000,000 |
| 1,000,000,000 | 30 | 1,000,000,000 |

```python
def search(values: list[int], wanted: int) -> int | None:
    low, high = 0, len(values)
    while low < high:
        middle = (low + high) // 2
        if values[middle] == wanted:
            return middle
        if values[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return None
```

> Most errors are made at the ends of the range.

The same idea finds where a function crosses zero, see [bisection](https://example.org/bisection).

"""


class Bare(App[None]):
    """A transcript and nothing else, with the chat's own styles."""

    def __init__(self) -> None:
        super().__init__(css_path=chat.__file__.replace("app.py", "chat.tcss"))

    def compose(self) -> ComposeResult:
        """Nothing but the transcript."""
        yield Transcript()


class Writer:
    """Writes answers into either transcript."""

    def __init__(self, shown: Any) -> None:  # noqa: ANN401 - one of two
        self._shown = shown
        self._count = 0
        self._widget: Any = None

    async def begin(self, text: str) -> None:
        """A question, and the beginning of its answer."""
        if hasattr(self._shown, "grow"):
            from edgespec.tui.transcript import Entry

            self._count += 1
            self._shown.add(Entry(f"q{self._count}", "question", "How?"))
            self._shown.add(Entry(f"a{self._count}", "answer", text, state="open"))
        else:
            await self._shown.question("How?")
            self._widget = await self._shown.answer()
            await self._widget.grow(text)

    async def grow(self, text: str) -> None:
        """More of the answer."""
        if self._widget is None:
            self._shown.grow(f"a{self._count}", text)
        else:
            await self._widget.grow(text)


async def idle(pilot: Any) -> None:  # noqa: ANN401 - textual's Pilot is generic
    """Wait until nothing is left to do, with at least one turn for what was just asked for."""
    await pilot.pause()
    await pilot.pause()


async def measure(num_answers: int, num_words: int) -> tuple[list[float], list[float], list[float]]:
    """Milliseconds of each redraw, and for each width: seconds, milliseconds of CPU time."""
    app = Bare()
    async with app.run_test(size=SIZE) as pilot:
        writer = Writer(app.query_one(Transcript))
        for _ in range(num_answers):
            await writer.begin(ANSWER * 3)
        await idle(pilot)
        await writer.begin("")
        await idle(pilot)
        idle_ms = await cost_of_idling(pilot)
        redraws: list[float] = []
        words = (ANSWER * 3).split(" ")
        for start in range(0, len(words), num_words):
            before = time.thread_time()
            await writer.grow(" ".join(words[start : start + num_words]) + " ")
            await idle(pilot)
            redraws.append(1000 * (time.thread_time() - before) - idle_ms)
        seconds: list[float] = []
        cpu: list[float] = []
        for width in WIDTHS:
            began, before = time.monotonic(), time.thread_time()
            await pilot.resize_terminal(width, SIZE[1])
            await idle(pilot)
            seconds.append(time.monotonic() - began)
            cpu.append(1000 * (time.thread_time() - before) - idle_ms)
        return redraws, seconds, cpu


async def cost_of_idling(pilot: Any) -> float:  # noqa: ANN401
    """Milliseconds of CPU time that waiting itself takes."""
    costs: list[float] = []
    for _ in range(20):
        before = time.thread_time()
        await idle(pilot)
        costs.append(1000 * (time.thread_time() - before))
    return statistics.median(costs)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=20)
    parser.add_argument("--words", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    for _ in range(options.rounds):
        redraws, seconds, cpu = asyncio.run(measure(options.answers, options.words))
        redraws.sort()
        print(
            f"redraw, ms of CPU: median {statistics.median(redraws):.1f},"
            f" p95 {redraws[int(0.95 * len(redraws))]:.1f}, worst {redraws[-1]:.1f};"
            f" eight widths: {sum(seconds):.2f} s, CPU {sum(cpu):.0f} ms, worst {max(cpu):.0f} ms"
        )


if __name__ == "__main__":
    main()
