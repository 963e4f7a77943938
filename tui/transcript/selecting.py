"""Parts of a row: restyled, covered, or copied as text."""

from __future__ import annotations

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip


def restyled(strip: Strip, start: int, end: int, style: Style) -> Strip:
    """`strip` with `style` on its characters from `start` to `end`; -1 is the last one of text."""
    text = strip.text
    end = len(text.rstrip()) if end < 0 else end
    segments: list[Segment] = []
    place = 0
    for segment in strip:
        first = min(max(start - place, 0), len(segment.text))
        last = min(max(end - place, first), len(segment.text))
        before, within, after = (
            segment.text[:first], segment.text[first:last], segment.text[last:],
        )  # fmt: skip
        own = segment.style or Style.null()
        segments += [
            Segment(part, part_style)
            for part, part_style in ((before, own), (within, own + style), (after, own))
            if part
        ]
        place += len(segment.text)
    return Strip(segments, strip.cell_length)


def overlaid(strip: Strip, segment: Segment, right: int) -> Strip:
    """`strip` with `segment` on it, ending at column `right`."""
    left = max(0, right - segment.cell_length)
    return Strip.join([strip.crop(0, left), Strip([segment]), strip.crop(right)])


def copied(strip: Strip, start: int, end: int, inset: int) -> str:
    """The characters from `start` to `end` (-1: all), without the first `inset` and padding."""
    text = strip.text
    return text[max(start, inset) : len(text) if end < 0 else max(end, inset)].rstrip()
