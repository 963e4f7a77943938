"""Styles and widths that drawing depends on, and nothing else of the app."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rich.cells import cell_len
from rich.segment import Segment
from textual.strip import Strip
from textual.style import Style

from edgespec.tui.sources import CATEGORIES

MAX_WIDTH = 116
"""Columns of text beyond which lines are hard to read."""

INSET = 2
"""Columns before the text of every entry: the bar of a question and a space."""

STYLE_NAMES = (
    "muted", "error", "link", "strong", "em", "s", "code", "h1", "h2", "h3", "h4", "h5", "h6",
    "rule", "quote", "bar", "bullet", "head", "fence", "question", "accent", "waiting", "marked",
    "hint", *CATEGORIES,
)  # fmt: skip
"""Styles by the name of their component class, without its `transcript--`."""

Line = list[tuple[str, Style]]
"""A row of text in runs of one style each."""


class Rows(Protocol):
    """Rows of the screen, some of them perhaps made when they are asked for."""

    def __len__(self) -> int:
        """Number of rows."""
        ...

    def __getitem__(self, index: int, /) -> Strip:
        """The row with that number, from the top."""
        ...


@dataclass(frozen=True, eq=False)
class Look:
    """A theme's styles: of plain text, by name, and of code by what Textual's highlighter says."""

    base: Style = Style()  # noqa: RUF009 - frozen
    styles: Mapping[str, Style] = field(default_factory=dict)
    syntax: Callable[[], Mapping[str, Style]] = dict

    def __getitem__(self, name: str) -> Style:
        """The style with that name, to be added to what it lies on; nothing if it has none."""
        return self.styles.get(name, NOTHING)

    def of_code(self, name: str) -> Style:
        """The style of a piece of code."""
        return self.syntax().get(name, NOTHING)


NOTHING = Style()


@dataclass(frozen=True, eq=False)
class Frame:
    """A column of text, centred in `total` columns."""

    total: int
    look: Look

    @property
    def column(self) -> int:
        """Columns of an entry, its inset included."""
        return max(12, min(MAX_WIDTH, self.total - 2 * INSET))

    @property
    def left(self) -> int:
        """Columns before an entry."""
        return max(0, (self.total - self.column) // 2)

    @property
    def width(self) -> int:
        """Columns for text."""
        return self.column - 2 * INSET

    def blank(self) -> Strip:
        """An empty row."""
        return Strip([Segment(" " * self.total, self.look.base.rich_style)], self.total)

    def row(self, line: Line) -> Strip:
        """A row of an answer."""
        return self._strip([(" " * (self.left + INSET), self.look.base), *line])

    def barred(self, line: Line, bar: Style, ground: Style) -> Strip:
        """A row of a question, after a bar, on its own ground."""
        base = self.look.base
        line = filled([(" ", base + ground), *line], self.column - 1, base + ground)
        return self._strip([(" " * self.left, base), ("▌", base + ground + bar), *line])

    def _strip(self, line: Line) -> Strip:
        line = filled(line, self.total, self.look.base)
        segments = [Segment(text, style.rich_style) for text, style in line if text]
        strip = Strip(segments)
        return strip if strip.cell_length == self.total else strip.crop(0, self.total)


def filled(line: Line, width: int, style: Style) -> Line:
    """`line` with spaces to `width` columns."""
    space = width - sum(cell_len(text) for text, _ in line)
    return [*line, (" " * space, style)] if space > 0 else line


def blanks(frame: Frame, count: int) -> Sequence[Strip]:
    """That many empty rows."""
    return [frame.blank()] * count
