"""A view over the rows of a column of messages: what is drawn, where it is, what is selected."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import ClassVar

from rich.segment import Segment
from textual import events
from textual.geometry import Offset, Region, Size
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip
from textual.style import Style
from textual.timer import Timer
from textual.widget import Widget

from edgespec.tui.transcript.inline import clickable
from edgespec.tui.transcript.layout import Column
from edgespec.tui.transcript.look import STYLE_NAMES, Frame, Look
from edgespec.tui.transcript.selecting import copied, overlaid, restyled

IDLE_INTERVAL, IDLE_SLICE = 0.25, 0.01
"""Seconds in which nothing happens before estimated heights are corrected, and for how many."""


class RowsView(ScrollView, can_focus=False):
    """Scrolls over messages, of which only what is in view is laid out.

    Its end stays in view while `_follows`; else the first row in view stays where it is, whatever
    heights above turn out to be.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"transcript--{name}" for name in STYLE_NAMES}

    def __init__(self) -> None:
        super().__init__()
        self.auto_links = False
        self._column = Column()
        self._welcome: tuple[str, ...] = ()
        self._follows = True
        self._marked: str | None = None
        self._is_placing = False
        self._shown: list[Strip] = []
        self._idle: Timer | None = None
        self._clicked_row = 0

    @property
    def num_rows_below(self) -> int:
        """Rows below those in view."""
        return max(0, self.max_scroll_y - self.scroll_offset.y)

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """Whatever changes within, what is in view stays there."""
        column, row = self._column, self.scroll_offset.y
        place = None if self._follows or column.frame is None else column.place(row)
        yield
        column.touch()
        if column.frame is not None and place is not None:
            now = column.row_of(place)
            if now is not None and now != row:
                self._set_height()
                self._scroll_to_row(now)
        self._place()

    def _place(self) -> None:
        """Draw what comes into view, and scroll such that what was in view stays."""
        column = self._column
        if not self.size or not self.is_mounted or self._is_placing:
            return
        if column.frame is None or column.frame.total != self.size.width:
            return
        for _ in range(8):
            row = column.tops()[-1] - self.size.height if self._follows else self.scroll_offset.y
            row = max(0, row)
            place = column.place(row)
            moved = column.draw(row, row + self.size.height)
            if not self._follows and moved and place is not None:
                row = column.row_of(place) or 0
            self._set_height()
            self._scroll_to_row(column.tops()[-1] if self._follows else row)
            if not moved:
                break
        self._paint()
        if self._idle is not None:
            self._idle.reset()
            self._idle.resume()

    def _set_height(self) -> None:
        height = self._column.tops()[-1] if self._column.messages else 0
        size = Size(self.size.width, height)
        if size != self.virtual_size:
            # Below a prompt, the view is as high as its rows until it may grow no more.
            shown = self.size.height
            if self.styles.auto_dimensions and min(self.virtual_size.height, height) <= shown:
                self.refresh(layout=True)
            # Without the layout of the whole screen that a change of this value brings along. Where
            # it shrinks Textual scrolls up: that is not the user's doing.
            self.set_reactive(Widget.virtual_size, size)
            with self._placing():
                self._scroll_update(size)

    def _scroll_to_row(self, row: int) -> None:
        with self._placing():
            self.set_scroll(None, min(max(0, row), self.max_scroll_y))
            if self.show_vertical_scrollbar:  # `set_scroll` tells no watcher
                self.vertical_scrollbar.position = self.scroll_y

    @contextmanager
    def _placing(self) -> Iterator[None]:
        """What scrolls meanwhile is not the user."""
        was_placing, self._is_placing = self._is_placing, True
        try:
            yield
        finally:
            self._is_placing = was_placing

    def _correct(self) -> None:
        """In an idle moment, replace some estimates by true heights."""
        column = self._column
        if column.frame is None or self.text_selection is not None:
            return
        with self._kept():
            is_left = column.correct(IDLE_SLICE)
        if not is_left and self._idle is not None:
            self._idle.pause()

    # Events

    def on_mount(self) -> None:
        """Begin to correct estimates when there are any."""
        super().on_mount()  # type: ignore[no-untyped-call]
        self._idle = self.set_interval(IDLE_INTERVAL, self._correct, pause=True)

    def on_resize(self) -> None:
        """Lay out what is in view for the new size."""
        column = self._column
        row = self.scroll_offset.y
        place = None if column.frame is None else column.place(row)
        if column.frame is None or column.frame.total != self.size.width:
            if self.text_selection is not None:
                self.screen.clear_selection()
            self._set_frame(Frame(self.size.width, self._look()))
            if place is not None and not self._follows:
                self._set_height()
                self._scroll_to_row(column.row_of(place) or 0)
        self._place()

    def notify_style_update(self) -> None:
        """Draw in the colours of another theme."""
        super().notify_style_update()
        if self._column.frame is not None and self.is_mounted:
            self._set_frame(Frame(self._column.frame.total, self._look()))
            self.call_after_refresh(self._place)

    def _set_frame(self, frame: Frame) -> None:
        self._column.frame = frame
        self._column.touch()

    def _look(self) -> Look:
        parse = self.app.stylesheet.parse_style

        @cache
        def syntax() -> dict[str, Style]:
            from textual.highlight import HighlightTheme  # loads Pygments: not for the first frame

            return {name: parse(name) for name in HighlightTheme.STYLES.values() if name}

        return Look(
            self.visual_style,
            {
                name: self.get_visual_style(f"transcript--{name}", partial=True)
                for name in STYLE_NAMES
            },
            syntax,
        )

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Draw what comes into view; the end is followed while it is there."""
        if self.show_vertical_scrollbar:
            self.vertical_scrollbar.position = new_value
        if not self._is_placing and round(old_value) != round(new_value):
            self._follows = new_value >= self.max_scroll_y
            self._place()

    def on_mouse_down(self, event: events.MouseDown) -> None:
        """Remember where, for a double click."""
        self._clicked_row = event.y + self.scroll_offset.y

    def text_select_all(self) -> None:
        """At a double click, select the block that was clicked."""
        found = self._column.find(self._clicked_row)
        if found is not None and self._column.frame is not None:
            _, piece, place = found
            top = self._clicked_row - place
            end = Offset(self.size.width, top + piece.height - 1)
            self.screen.selections = {self: Selection(Offset(0, top), end)}

    @property
    def select_container(self) -> Widget:
        """At a triple click, as at a double click."""
        return self

    # Drawing

    def _paint(self) -> None:
        """Refresh the rows of the screen that are not what they were."""
        shown = self._strips()
        if len(shown) != len(self._shown):
            self.refresh()
        else:
            changed = [
                y
                for y, (new, old) in enumerate(zip(shown, self._shown, strict=True))
                if new is not old and new != old
            ]
            if changed:
                height = changed[-1] - changed[0] + 1
                self.refresh(Region(0, changed[0], self.size.width, height))
        self._shown = shown

    def render_lines(self, crop: Region) -> list[Strip]:
        """The rows in view; they are complete, so that nothing of the styles is to be added."""
        strips = [self._selected(y) for y in crop.line_range]
        background = self.background_colors[1]
        for line_filter in self.get_line_filters():
            strips = [strip.apply_filter(line_filter, background) for strip in strips]
        if crop.column_span != (0, self.size.width):
            strips = [strip.crop(*crop.column_span) for strip in strips]
        return strips

    def render_line(self, y: int) -> Strip:
        """The row `y` of those in view, told where it is, for selections."""
        return self._selected(y).apply_offsets(0, y + self.scroll_offset.y)

    def _selected(self, y: int) -> Strip:
        if y >= len(self._shown):  # it grew, and is placed soon
            return Strip.blank(self.size.width, self.visual_style.rich_style)
        strip = self._shown[y]
        selection = self.text_selection
        span = None if selection is None else selection.get_span(y + self.scroll_offset.y)
        return strip if span is None else restyled(strip, *span, self.selection_style)

    def _strips(self) -> list[Strip]:
        """The rows in view, from the top."""
        frame, height, column = self._column.frame, self.size.height, self._column
        if frame is None or frame.total != self.size.width:
            return [Strip.blank(self.size.width, self.visual_style.rich_style)] * height
        if not column.messages:
            return [self._welcome_row(y, frame) for y in range(height)]
        first = self.scroll_offset.y
        strips = [strip or frame.blank() for strip in column.strips(first, first + height)]
        if self._marked is not None:
            ground = (frame.look.base + frame.look["marked"]).background_style
            for y, strip in enumerate(strips):
                found = column.find(first + y)
                if found is not None and found[0].entry.key == self._marked:
                    strips[y] = restyled(strip, 0, len(strip.text), ground.rich_style)
        if strips and not self._follows and self.num_rows_below:
            style = frame.look.base + frame.look["hint"] + clickable("end")
            hint = Segment(f" ↓ {self.num_rows_below:,} lines ", style.rich_style)
            strips[-1] = overlaid(strips[-1], hint, frame.left + frame.column)
        return strips

    def _welcome_row(self, y: int, frame: Frame) -> Strip:
        index = y - max(0, (self.size.height - len(self._welcome)) // 2)
        if not 0 <= index < len(self._welcome):
            return frame.blank()
        style = (frame.look.base + frame.look["muted"]).rich_style
        strip = Strip([Segment(self._welcome[index], style)]).crop(0, frame.total)
        left = (frame.total - strip.cell_length) // 2
        base = frame.look.base.rich_style
        right = frame.total - left - strip.cell_length
        return Strip([Segment(" " * left, base), *strip, Segment(" " * right, base)])

    # Selecting

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """The selected text as it is shown, without what is only there for the look."""
        column, frame = self._column, self._column.frame
        if frame is None or not column.messages:
            return None
        first = 0 if selection.start is None else selection.start.y
        last = column.tops()[-1] - 1 if selection.end is None else selection.end.y
        column.draw(first, last + 1)
        lines: list[str] = []
        for row, strip in enumerate(column.strips(first, last + 1), start=first):
            found, span = column.find(row), selection.get_span(row)
            if found is None or span is None or strip is None:
                lines.append("")
                continue
            lines.append(copied(strip, *span, frame.left + found[1].inset))
        return "\n".join(lines), "\n"
