"""The line at the bottom: what the app is doing, how fast, and with what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from edgespec.tui.plain import plain
from edgespec.types import ServedModel, SpeculationStats, Timings

State = Literal["loading", "ready", "prefilling", "answering", "stopping", "failed"]

UNKNOWN = "–"
"""Stands for a number before there is anything to count."""

SEPARATOR = " · "

STATE_STYLES: dict[State, str] = {
    "loading": "$text-warning",
    "ready": "$text-success",
    "prefilling": "$text-warning",
    "answering": "$text-primary",
    "stopping": "$text-warning",
    "failed": "$text-error",
}


@dataclass(frozen=True, slots=True)
class Status:
    """All that the status bar shows; `timings` and `stats` are of the present or last answer.

    `detail` says how far the loading is, in place of the bare state; `background` what goes on
    besides, such as a model that is being pulled; `legend` is shown in place of the numbers.
    """

    state: State = "loading"
    detail: str = ""
    model: ServedModel | None = None
    timings: Timings | None = None
    stats: SpeculationStats | None = None
    is_incognito: bool = False
    legend: Content | None = None
    background: str = ""


def speed(status: Status) -> str:
    """Tokens per second of the answer, first token excluded; like all numbers, "" if unknown."""
    rate = status.timings.decode_tokens_per_second if status.timings else 0.0
    return f"{rate:.1f} tok/s" if rate else ""


def speedup(status: Status) -> str:
    """Speed against the measured cost of plain decoding."""
    factor = status.timings.speedup if status.timings else None
    return f"{factor:.1f}x" if factor is not None else ""


def acceptance(status: Status) -> str:
    """Share of the drafted tokens that the target kept."""
    if status.stats is None or not status.stats.proposed:
        return ""
    return f"{status.stats.acceptance_rate:.0%} accepted"


def context(status: Status) -> str:
    """Tokens of the context in use, of those there are."""
    timings = status.timings
    if timings is None or status.model is None:
        return ""
    used = timings.num_prompt_tokens + timings.num_decoded_tokens
    return f"context {used:,}/{status.model.num_context:,}"


def fit(parts: Sequence[tuple[int, str]], width: int) -> list[str]:
    """The parts, in order, that fit into `width` cells with separators between them.

    Each part comes with its rank; where room is short, the highest ranks are left out first.

    >>> fit([(0, "ready"), (2, "qwen"), (1, "17.7 tok/s")], 20)
    ['ready', '17.7 tok/s']
    """
    kept = sorted(range(len(parts)), key=lambda index: parts[index][0])
    while kept and _width([parts[index][1] for index in kept]) > width:
        kept.pop()
    return [parts[index][1] for index in sorted(kept)]


def _width(texts: Sequence[str]) -> int:
    return sum(map(len, texts)) + len(SEPARATOR) * max(0, len(texts) - 1)


def ranked_parts(status: Status) -> list[tuple[int, str]]:
    """Everything after the state, from left to right, with its rank."""
    model = status.model
    own = [(1, "incognito")] if status.is_incognito else []
    if status.background:
        own.append((1, status.background))
    if model is None:
        return own
    numbers = [
        (0, speed(status)), (1, speedup(status)), (3, acceptance(status)), (4, context(status))
    ]  # fmt: skip
    parts = [*own, *(part for part in numbers if part[1])]
    drafter = "no drafter" if model.drafter == "none" else f"drafter {model.drafter}"
    return [*parts, (5, model.exactness), (2, model.name), (6, drafter)]


class StatusBar(Widget):
    """Draws a `Status` in one line, leaving out what the width has no room for."""

    status: reactive[Status] = reactive(Status())

    def render(self) -> Content:
        """The state in its colour, the rest muted."""
        state = plain(f"● {self.status.detail or self.status.state}")
        room = self.content_size.width - len(state) - len(SEPARATOR)
        if self.status.legend is not None:
            return Content.assemble(("● ", STATE_STYLES[self.status.state]), self.status.legend)
        rest = "".join(SEPARATOR + text for text in fit(ranked_parts(self.status), room))
        return Content.assemble((state, STATE_STYLES[self.status.state]), (rest, "$text-muted"))
