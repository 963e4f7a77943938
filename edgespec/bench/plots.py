"""The plots of a report, each drawn for a width in pixels: names stand where things are.

Nothing here reads a report: a plot is given its figures, and gives an element `svg`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from edgespec.bench.figures import Place
from edgespec.bench.records import Counts
from edgespec.bench.statistics import Paired
from edgespec.bench.svg import SIZE, Canvas, Colour, colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDE, NARROW = 720, 366
"""Pixels: as the page's column, and as a phone's."""

_ROW = 24
_SOURCES: Mapping[str, Colour] = {
    "target": "muted",
    "context": "context",
    "database": "model",
    "database/statistics": "statistics",
    "grammar": "grammar",
}
_PARTS: Mapping[str, tuple[Colour, tuple[str, ...]]] = {
    "target": ("line", ("target",)),
    "drafters": ("accent", ("drafters",)),
    "bridge": ("model", ("bridge",)),
    "everything else": ("muted", ("lookups", "planner", "sampler", "text", "rest")),
}


def source_colour(source: str) -> Colour:
    """As the chat tints what came from a source; models are drafters.

    >>> source_colour("database"), source_colour("smollm2-135m")
    ('model', 'drafter')
    """
    return _SOURCES.get(source, "drafter")


@dataclass(frozen=True, slots=True)
class ForestRow:
    """A line of a forest plot: a speed-up with its interval, or a heading where there is none."""

    name: str
    value: Paired | None = None
    is_accent: bool = False


def forest(rows: Sequence[ForestRow], width: int, label: str, style: str = "") -> str:
    """Speed-ups with their intervals, one a line, beside a line at 1."""
    is_wide = width > NARROW
    left, right = (170, 150) if is_wide else (134, 56)
    places, height = _places(rows)
    canvas = Canvas(width, height + 34)
    axes = canvas.axes(left, 4, width - left - right, height)
    axes.set_ylim(height, 0)
    values = [row.value for row in rows if row.value is not None and row.value.num]
    ends = [end for value in values for end in (value.interval or (value.median, value.median))]
    low, high = min([1.0, *ends]), max([1.0, *ends])
    axes.set_xlim(low - 0.06 * (high - low or 1), high + 0.06 * (high - low or 1))
    _times(axes, 5 if is_wide else 4)
    axes.axvline(1, color=colour("muted"), linewidth=1)
    for place, row in zip(places, rows, strict=True):
        middle = 4 + place
        if row.value is None:
            canvas.text(0, middle, _short(row.name, 24), bold=True)
            continue
        _interval(axes, place, row.value, "accent" if row.is_accent else "muted")
        name: Colour = "accent" if row.is_accent else "text"
        canvas.text(0, middle, _short(row.name, 26 if is_wide else 19), name)
        end = width - right + 52
        if row.value.num:
            said = f"{row.value.median:.2f}x"
            canvas.text(end, middle, said, name, align="right", bold=row.is_accent)
        if is_wide and row.value.interval:
            ends_said = "{:.2f} to {:.2f}".format(*row.value.interval)
            canvas.text(width, middle, ends_said, "muted", align="right")
    return canvas.svg(label, style)


def _places(rows: Sequence[ForestRow]) -> tuple[list[float], float]:
    """Pixels from the upper edge to the middle of each line, and to the last one's end."""
    places, top = [], 0.0
    for index, row in enumerate(rows):
        top += _ROW / 2 if index and row.value is None else 0.0
        places.append(top + _ROW / 2)
        top += _ROW
    return places, top


def pass_times(pass_ms: Mapping[int, float], used: Mapping[int, int], width: int) -> str:
    """T(r), and below it how often the product's passes had so many rows."""
    canvas = Canvas(width, 330)
    left, most = 44, max([*pass_ms, *used])
    canvas.text(0, 10, "milliseconds of a pass", "muted")
    above = canvas.axes(left, 30, width - left - 14, 150)
    known = sorted(pass_ms)
    above.plot(known, [pass_ms[rows] for rows in known], color=colour("accent"), linewidth=2)
    above.plot(known, [pass_ms[rows] for rows in known], "o", color=colour("accent"), markersize=5)
    above.set_ylim(0, 1.15 * max(pass_ms.values()))
    above.yaxis.grid(True, color=colour("line"), linewidth=0.8)
    above.tick_params(labelbottom=False)
    for rows, align, up in ((known[0], "left", -18), (known[-1], "right", 6)):
        said = f"{pass_ms[rows]:.0f} ms"
        _note(above, rows, pass_ms[rows], said, "text", align=align, up=up)
    canvas.text(0, 206, "share of the passes, by their rows", "muted")
    below = canvas.axes(left, 226, width - left - 14, 74)
    total = sum(used.values()) or 1
    shares = {rows: count / total for rows, count in used.items()}
    below.bar(list(shares), list(shares.values()), 0.7, color=colour("accent"), alpha=0.55)
    below.set_ylim(0, 1.3 * max(shares.values(), default=1))
    below.set_yticks([])
    has_room, commonest = (width - left) / most > 32, max(shares, key=shares.__getitem__)
    for rows, share in shares.items():
        if rows == commonest or (has_room and share >= 0.03):
            _note(below, rows, share, f"{share:.0%}")
    for axes in (above, below):
        axes.set_xlim(0.4, most + 0.6)
    every = 1 if most <= 8 or width > NARROW else 2
    below.set_xticks(range(1, most + 1, every))
    canvas.text(width, 322, "rows", "muted", align="right")
    return canvas.svg("Milliseconds of a pass by its rows, and how often it had so many")


def acceptance(places: Sequence[Place], sources: Mapping[str, Counts], width: int) -> str:
    """How many draft tokens were kept: by their place in the draft, and by their source."""
    top, height = 30, _ROW * max(len(sources), 1)
    canvas = Canvas(width, 230 + height + 34)
    canvas.text(0, 10, "kept, by place in the draft", "muted")
    axes = canvas.axes(0, top, width, 150)
    shares = [place.accepted / place.proposed for place in places]
    axes.bar(range(1, len(places) + 1), shares, 0.7, color=colour("accent"), alpha=0.55)
    axes.set_ylim(0, 1.2 * max(shares, default=1) or 1)
    axes.set_xlim(0.4, max(len(places), 6) + 0.6)
    axes.set_yticks([])
    axes.set_xticks(range(1, len(places) + 1))
    for place, share in enumerate(shares, 1):
        said = f"{share:.0%}" if width > NARROW or len(places) <= 9 else f"{100 * share:.0f}"
        _note(axes, place, share, said)
    canvas.text(0, 226, "kept, by source", "muted")
    left, right = (140, 130) if width > NARROW else (110, 96)
    below = canvas.axes(left, 242, width - left - right, height)
    below.spines["bottom"].set_visible(False)
    below.set_xlim(0, 1)
    below.set_ylim(max(len(sources), 1), 0)
    below.axis("off")
    for index, (source, counts) in enumerate(sources.items()):
        middle = 242 + _ROW * (index + 0.5)
        share = counts.accepted / counts.proposed if counts.proposed else 0.0
        below.barh(index + 0.5, 1, 0.5, color=colour("raised"))
        below.barh(index + 0.5, share, 0.5, color=colour(source_colour(source)), alpha=0.75)
        canvas.text(0, middle, _short(source, 16), source_colour(source))
        said = f"{share:.0%} of {counts.proposed:,}"
        canvas.text(width, middle, said, "muted", align="right")
    return canvas.svg("Shares of draft tokens that were kept, by place and by source")


def time_split(bars: Mapping[str, Mapping[str, float]], width: int) -> str:
    """Milliseconds of a decoded token by what they went into, a bar for each way."""
    is_wide = width > NARROW
    left, right, top = (170, 84, 30) if is_wide else (134, 60, 30)
    canvas = Canvas(width, top + _ROW * len(bars) + 10)
    place = 0.0
    for part, (name, _) in _PARTS.items():
        ink: Colour = "text" if name == "line" else name
        canvas.text(place, 10, part, ink)
        place += 7.2 * len(part) + 18
    axes = canvas.axes(left, top, width - left - right, _ROW * len(bars))
    axes.axis("off")
    axes.set_ylim(len(bars), 0)
    axes.set_xlim(0, max(sum(split.values()) for split in bars.values()) or 1)
    for index, (way, split) in enumerate(bars.items()):
        start = 0.0
        for name, members in _PARTS.values():
            ms = max(sum(split[member] for member in members), 0.0)
            axes.barh(index + 0.5, ms, 0.6, left=start, color=colour(name))
            start += ms
        middle = top + _ROW * (index + 0.5)
        canvas.text(0, middle, _short(way, 26 if is_wide else 19))
        said = f"{sum(split.values()):.1f} ms"
        canvas.text(width, middle, said, "muted", align="right")
    return canvas.svg("Milliseconds of a decoded token, by what they went into")


def learning(ratios: Sequence[float], width: int) -> str:
    """Speed-up of each question in the order of the run, and the median of its neighbours."""
    canvas = Canvas(width, 230)
    canvas.text(0, 10, "speed-up of each question; the line is the median around it", "muted")
    axes = _over_time(canvas, max(ratios))
    turns = range(1, len(ratios) + 1)
    axes.plot(turns, ratios, "o", color=colour("muted"), markersize=4, alpha=0.6)
    reach = max(len(ratios) // 12, 1)
    around = [
        median(ratios[max(index - reach, 0) : index + reach + 1]) for index in range(len(ratios))
    ]
    axes.plot(turns, around, color=colour("accent"), linewidth=2)
    axes.set_xlim(0, len(ratios) + 1)
    canvas.text(width, 222, "question", "muted", align="right")
    return canvas.svg("Speed-up by the order of the questions")


def by_day(days: Mapping[str, Paired], width: int) -> str:
    """Median speed-up of each day, with its interval."""
    canvas = Canvas(width, 230)
    canvas.text(0, 10, "median speed-up of the day", "muted")
    tops = [value.high or value.median for value in days.values()]
    axes = _over_time(canvas, 1.08 * max(tops))
    places = range(1, len(days) + 1)
    medians = [value.median for value in days.values()]
    for place, value in zip(places, days.values(), strict=True):
        if value.interval:
            axes.plot([place, place], value.interval, color=colour("accent"), alpha=0.5)
        _note(axes, place, value.high or value.median, f"{value.median:.2f}x", "text")
    axes.plot(places, medians, "o-", color=colour("accent"), linewidth=2, markersize=6)
    axes.set_xlim(0.6, len(days) + 0.6)
    axes.set_xticks(places, list(days))
    return canvas.svg("Speed-up by day")


def _over_time(canvas: Canvas, highest: float) -> Axes:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes = canvas.axes(44, 30, canvas.width - 58, 170)
    axes.set_ylim(0, 1.1 * max(highest, 1.0))
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.yaxis.grid(True, color=colour("line"), linewidth=0.8)
    axes.axhline(1, color=colour("muted"), linewidth=1)
    return axes


def _interval(axes: Axes, at: float, value: Paired, name: Colour) -> None:
    if value.interval:
        axes.plot(
            value.interval,
            (at, at),
            color=colour(name),
            linewidth=4,
            alpha=0.35,
            solid_capstyle="round",
        )
    if value.num:
        axes.plot([value.median], [at], "o", color=colour(name), markersize=6)


def _times(axes: Axes, num_ticks: int) -> None:
    """Ticks of speed-ups along the lower edge."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_yticks([])
    axes.xaxis.set_major_locator(MaxNLocator(num_ticks, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.xaxis.grid(True, color=colour("line"), linewidth=0.8)
    axes.set_axisbelow(True)


def _note(
    axes: Axes,
    x: float,
    y: float,
    text: str,
    name: Colour = "muted",
    *,
    align: str = "center",
    up: int = 6,
) -> None:
    """A word so many pixels above a point of some axes."""
    axes.annotate(
        text,
        (x, y),
        (0, up),
        textcoords="offset points",
        color=colour(name),
        fontsize=SIZE,
        ha=align,
    )


def _short(name: str, most: int) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
