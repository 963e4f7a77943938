"""A text area in which chips are one thing: the cursor jumps over them, and they go as a whole."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.document._document import EditResult, Location, Selection
from textual.document._edit import Edit
from textual.widgets import TextArea

from edgespec.tui.chips import Chip, Chips


class ChipArea(TextArea):
    """A `TextArea` whose text is a draft (see tui/chips.py)."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"chip-area--chip"}
    DEFAULT_CSS = """
    ChipArea .chip-area--chip {
        color: $text-primary;
        background: $boost;
    }
    """

    def __init__(self, id: str) -> None:
        self.chips = Chips()
        super().__init__(
            id=id, soft_wrap=True, show_line_numbers=False, highlight_cursor_line=False
        )

    def insert_chip(self, chip: Chip, place: Selection) -> str:
        """Put `chip` in the place of what stands at `place`; returns its label."""
        label = self.chips.label(chip)
        self._replace_via_keyboard(label, *place)
        return label

    def labels(self) -> list[str]:
        """The labels of the chips in the text."""
        lines = self.text.split("\n")
        return [line[start:end] for line in lines for start, end in self.chips.spans(line)]

    def rename_chip(self, label: str, chip: Chip, num_tokens: int) -> None:
        """Have the chip shown as `label` tell its size in tokens."""
        new = self.chips.label(chip, num_tokens)
        if new == label:
            return
        for row in range(self.document.line_count):
            column = self.document.get_line(row).find(label)
            while column >= 0:
                self.replace(new, (row, column), (row, column + len(label)))
                column = self.document.get_line(row).find(label, column + len(new))

    def set_draft(self, draft: str) -> None:
        """Show `draft`, with the cursor at its end and nothing to undo."""
        self.load_text(draft)
        self.move_cursor(self.document.end)

    def get_line(self, line_index: int) -> Text:
        """A line with its chips in their style."""
        line = super().get_line(line_index)
        for start, end in self.chips.spans(line.plain):
            line.stylize(self.get_component_rich_style("chip-area--chip"), start, end)
        return line

    def edit(self, edit: Edit) -> EditResult:
        """Make an edit that would leave a part of a chip behind take the whole chip."""
        top, bottom = edit.top, edit.bottom
        if top == bottom:
            top = bottom = self._outside(top, to_end=True)
        else:
            top, bottom = self._outside(top, to_end=False), self._outside(bottom, to_end=True)
        if (top, bottom) != (edit.top, edit.bottom):
            edit = Edit(edit.text, top, bottom, edit.maintain_selection_offset)
        return super().edit(edit)

    def validate_selection(self, selection: Selection) -> Selection:
        """Keep the cursor out of chips: it goes on in the direction in which it came."""
        start, end = selection
        forwards = self.selection.end < end
        end = self._outside(end, to_end=forwards)
        if selection.is_empty:
            return Selection.cursor(end)
        return Selection(self._outside(start, to_end=start > end), end)

    def action_copy(self) -> None:
        """Copy what the selection stands for."""
        if not self.selected_text:
            super().action_copy()
        else:
            self.app.copy_to_clipboard(self.chips.expand(self.selected_text))

    def action_cut(self) -> None:
        """Copy what the selection stands for, and delete it."""
        if not self.selection.is_empty:
            self.action_copy()
            self._delete_via_keyboard(*self.selection)

    def _outside(self, location: Location, to_end: bool) -> Location:
        row, column = location
        if row < self.document.line_count:
            for start, end in self.chips.spans(self.document.get_line(row)):
                if start < column < end:
                    return row, end if to_end else start
        return location
