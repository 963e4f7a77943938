"""The panel that F2 shows: what speculation did for this answer and this conversation.

On a wide terminal it is a column at the right, else it lies between conversation and input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.geometry import Size
from textual.reactive import reactive
from textual.widget import Widget
from textual.widgets import Sparkline

from edgespec.tui.plain import plain
from edgespec.tui.sources import CATEGORY_COLOURS, CATEGORY_LABELS, Category
from edgespec.tui.stats_view import DrafterFigures, StatsView
from edgespec.tui.status import UNKNOWN

BREAKPOINTS = [(0, "-slim"), (60, "-narrow"), (100, "-wide")]
"""For `HORIZONTAL_BREAKPOINTS` of an app that shows the panel: from how many columns it is what."""

FIGURES = (
    ("plain", "the speed without drafts, measured when the machine was as busy as now"),
    ("block efficiency", "tokens that one pass of the model gives, 1 without drafts"),
    ("MBSU", "speed-up if only reading weights took time: what drafting could give at best"),
    ("where it came from", "whose guess each piece of the answer was, before the model agreed"),
    ("a pass over rows", "time in which the model checks so many tokens at once: T(r)"),
    ("drafters", "share of their guesses that were kept, and what a guess costs"),
    ("waits for time", "work that is done while nobody waits for an answer"),
)
"""The numbers in words, for the help."""

_ROWS_SHOWN = (1, 2, 4, 8, 16)
_LEAST_MS = 0.05
"""A guess that costs less is not told to cost anything."""


class Part(Widget):
    """Some lines about a `StatsView`, drawn for the width that they have."""

    view: reactive[StatsView] = reactive(StatsView(), layout=True)

    def __init__(self, draw: Callable[[StatsView, int], Content]) -> None:
        super().__init__()
        self._draw = draw

    def render(self) -> Content:
        """The lines."""
        return self._draw(self.view, self.size.width)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """As many rows as there are lines: none is longer than the width."""
        return self._draw(self.view, width).plain.count("\n") + 1


class StatsPanel(VerticalScroll, can_focus=False):
    """Draws a `StatsView`; hidden until `display` is set."""

    SCOPED_CSS: ClassVar[bool] = False  # the screen's width decides
    DEFAULT_CSS = """
    StatsPanel {
        display: none;
        height: auto;
        max-height: 60%;
        padding: 0 2;
        background: $surface;
        scrollbar-size-vertical: 1;
    }
    .-narrow StatsPanel {
        layout: grid;
        grid-size: 2;
        grid-gutter: 0 3;
        grid-rows: auto;
    }
    .-wide StatsPanel {
        dock: right;
        width: 40;
        height: 100%;
        max-height: 100%;
        padding: 1 2;
    }
    StatsPanel Vertical, StatsPanel Part {
        height: auto;
    }
    .-slim #stats-left, .-wide #stats-left {
        margin-bottom: 1;
    }
    StatsPanel Sparkline {
        height: 1;
    }
    """

    def __init__(self, view: StatsView | None = None) -> None:
        super().__init__()
        self._view = view or StatsView()

    def compose(self) -> ComposeResult:
        """This answer; then this conversation and what is known besides."""
        with Vertical(id="stats-left"):
            yield Part(answer_part)
        with Vertical(id="stats-right"):
            yield Part(history_part)
            yield Sparkline()
            yield Part(machine_part)

    def on_mount(self) -> None:
        """Draw what was given."""
        self.show(self._view)

    def show(self, view: StatsView) -> None:
        """Draw this view from now on."""
        self._view = view
        for part in self.query(Part):
            part.view = view
        speeds = self.query_one(Sparkline)
        speeds.data = view.history
        speeds.display = len(view.history) > 1


def answer_part(view: StatsView, width: int) -> Content:
    """This answer: speed, what drafting did, where it came from."""
    plain_speed = number(view.plain_tokens_per_second, "{:.1f} tok/s")
    lines = [
        heading("This answer"),
        row("speed", number(view.tokens_per_second, "{:.1f} tok/s"), width),
        row("against plain", number(view.speedup, "{:.2f}x"), width),
        row("plain, as busy", plain_speed, width),
        row("accepted", number(view.acceptance, "{:.0%}"), width),
        row("block efficiency", number(view.block_efficiency, "{:.2f}"), width),
        row("MBSU", number(view.mbsu, "{:.2f}x"), width),
        Content(""),
        heading("Where it came from"),
        *(share_lines(view.shares, width) if view.shares else [muted(UNKNOWN)]),
    ]
    return Content("\n").join(lines)


def history_part(view: StatsView, width: int) -> Content:
    """The range of speeds in this conversation; their picture follows."""
    lines = [heading("This conversation")]
    if view.history:
        least, most = min(view.history), max(view.history)
        count = len(view.history)
        label = f"{count} answer{'s' if count > 1 else ''}"
        span = f"{least:.1f}" if count == 1 else f"{least:.1f} to {most:.1f}"
        lines.append(row(label, f"{span} tok/s", width))
    else:
        lines.append(muted(UNKNOWN))
    return Content("\n").join(lines)


def machine_part(view: StatsView, width: int) -> Content:
    """Drafters, T(r), and what waits for idle time."""
    shown = [(rows, ms) for rows, ms in view.pass_ms if rows in _ROWS_SHOWN]
    lines = [
        Content(""),
        heading("Drafters"),
        *([drafter_line(each, width) for each in view.drafters] or [muted(UNKNOWN)]),
        Content(""),
        heading("A pass over rows, ms"),
        *(pass_lines(shown) if shown else [muted(UNKNOWN)]),
        Content(""),
        heading("Waits for time"),
        *([muted(plain(each)) for each in view.idle] or [muted("nothing")]),
    ]
    return Content("\n").join(lines)


def share_lines(shares: Sequence[tuple[Category, float]], width: int) -> list[Content]:
    """One bar in the colours of the categories, and a line for each of them.

    >>> [str(line) for line in share_lines([("target", 0.75), ("context", 0.25)], 24)]
    ['████████████████████████', '■ the model          75%', '■ this chat          25%']
    """
    cells = apportioned([share for _, share in shares], width)
    bar = [
        ("█" * count, CATEGORY_COLOURS[each])
        for (each, _), count in zip(shares, cells, strict=True)
    ]
    legend = [
        Content.assemble(
            ("■ ", CATEGORY_COLOURS[each]),
            row(CATEGORY_LABELS[each], f"{share:.0%}", width - 2),
        )
        for each, share in shares
    ]
    return [Content.assemble(*bar), *legend]


def apportioned(shares: Sequence[float], num_cells: int) -> list[int]:
    """Whole cells for shares that add up to 1: what is there at all gets one, if there is room.

    >>> apportioned([0.97, 0.02, 0.01], 10)
    [8, 1, 1]
    """
    cells = [max(1, round(share * num_cells)) for share in shares]
    while sum(cells) > num_cells and max(cells) > 1:
        cells[cells.index(max(cells))] -= 1
    if cells and sum(cells) < num_cells:
        cells[cells.index(max(cells))] += num_cells - sum(cells)
    return cells


def drafter_line(drafter: DrafterFigures, width: int) -> Content:
    """A drafter, what was kept of its guesses, and what one costs."""
    value = number(drafter.acceptance, "{:.0%}")
    if drafter.num_proposed:
        value += f" of {drafter.num_proposed:,}"
    if drafter.token_ms is not None and drafter.token_ms >= _LEAST_MS:
        value += f", {drafter.token_ms:.1f} ms"
    return row(plain(drafter.name), value, width)


def pass_lines(shown: Sequence[tuple[int, float]]) -> list[Content]:
    """Rows above their times, column by column.

    >>> [str(line) for line in pass_lines([(1, 30.0), (4, 35.2)])]
    ['  1   4', ' 30  35']
    """
    times = [f"{ms:.0f}" if ms >= 10 else f"{ms:.1f}" for _, ms in shown]
    width = max(3, *(len(time) + 1 for time in times))
    rows = " ".join(f"{rows:>{width}}" for rows, _ in shown)
    return [muted(rows), Content(" ".join(f"{time:>{width}}" for time in times))]


def row(label: str, value: str, width: int) -> Content:
    """A label at the left and its value at the right; a long label is cut."""
    room = max(width - len(value) - 1, 4)
    label = label if len(label) <= room else f"{label[: room - 1]}…"
    return Content.assemble(
        (label, "$text-muted"), " " * max(width - len(label) - len(value), 1), value
    )


def number(value: float | None, form: str) -> str:
    """The number in this form, or a dash."""
    return UNKNOWN if value is None else form.format(value)


def heading(text: str) -> Content:
    """The name of a group."""
    return Content.styled(text, "bold")


def muted(text: str) -> Content:
    """What is less than a number."""
    return Content.styled(text, "$text-muted")
