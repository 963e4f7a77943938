"""The widget: scrolls over the rows of its entries and keeps in view what was."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from textual.content import Content
from textual.message import Message as Event
from textual.reactive import reactive
from textual.style import Style

from edgespec.tui.plain import plain
from edgespec.tui.sources import CATEGORIES, CATEGORY_LABELS
from edgespec.tui.transcript.inline import WEB
from edgespec.tui.transcript.items import Entry
from edgespec.tui.transcript.message import Message
from edgespec.tui.transcript.rows_view import RowsView
from edgespec.types import Span


class Transcript(RowsView):
    """Questions, answers in Markdown, notes and errors, one below the other.

    Its end stays in view as it grows, until the user scrolls up, and again once they are back at
    the end. Otherwise what is in view stays where it is, whatever heights above turn out to be.
    """

    class Step(Event):
        """The user asks for another version of a message, `step` (-1 or 1) from this one."""

        def __init__(self, key: str, step: int) -> None:
            super().__init__()
            self.key = key
            self.step = step

    tint: reactive[bool] = reactive(False)
    """Whether answers are shown as they were written, in the colours of their sources."""

    def __init__(self) -> None:
        super().__init__()
        self._keys: dict[str, Message] = {}

    # What it shows

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All entries, from the top."""
        return tuple(message.entry for message in self._column.messages)

    def show(self, entries: Iterable[Entry]) -> None:
        """Show these entries and no others, the end in view."""
        self._column.messages = [Message(entry, self.tint) for entry in entries]
        self._keys = {message.entry.key: message for message in self._column.messages}
        self._follows, self._marked = True, None
        self._column.touch()
        self._place()

    def add(self, entry: Entry) -> None:
        """Add an entry at the end; a question that waits stays below all others."""
        message = Message(entry, self.tint)
        self._keys[entry.key] = message
        messages = self._column.messages
        waits = bool(messages) and messages[-1].entry.state == "waiting"
        with self._kept():
            messages.insert(len(messages) - waits, message)
            self._follows = self._follows or entry.kind == "question"

    def update(self, entry: Entry) -> None:
        """Show `entry` in place of the one with its key."""
        with self._kept():
            self._keys[entry.key].update(entry)

    def grow(self, key: str, text: str, spans: Sequence[Span] = ()) -> None:
        """Add to the text of an entry."""
        with self._kept():
            self._keys[key].grow(text, spans)

    def remove(self, key: str) -> None:  # type: ignore[override]
        """Take an entry away."""
        with self._kept():
            self._column.messages.remove(self._keys.pop(key))

    def clear(self) -> None:
        """Take all entries away."""
        self.show(())

    def welcome(self, lines: Iterable[str]) -> None:
        """Say `lines` in the middle as long as there are no entries."""
        self._welcome = tuple(plain(line) for line in lines)
        self._place()

    def text_of(self, key: str) -> str:
        """The text of an entry, as it was given."""
        return self._keys[key].entry.text

    def toggle_fold(self) -> None:
        """Show or hide what is folded in the last message in view that has such a thing."""
        for message in reversed(self._messages_in_view()):
            if message.is_foldable:
                self.action_fold(message.entry.key)
                return

    @property
    def legend(self) -> Content:
        """One line that says which colour is which source."""
        parts: list[tuple[str, Style]] = []
        for name in CATEGORIES:
            style = self.get_visual_style(f"transcript--{name}", partial=True)
            parts += [("  ", Style())] * bool(parts) + [(f"■ {CATEGORY_LABELS[name]}", style)]
        return Content.assemble(*parts)

    def watch_tint(self, tint: bool) -> None:
        """Draw all answers anew."""
        with self._kept():
            for message in self._column.messages:
                message.tint(tint)

    # Where it is

    @property
    def is_at_end(self) -> bool:
        """True while the end is in view and stays there."""
        return self._follows

    def jump_to_end(self) -> None:
        """Bring the end into view and keep it there."""
        self._follows, self._marked = True, None
        self._place()

    def jump_to(self, key: str) -> None:
        """Bring the beginning of an entry near the top, marked until `unmark`."""
        message = self._keys[key]
        self._marked, self._follows = key, False
        for _ in range(3):  # heights below are estimated until they are in view
            top = self._column.tops()[self._column.messages.index(message)]
            self._scroll_to_row(top - 1)
            self._place()

    def unmark(self) -> None:
        """Show the marked entry like the others."""
        if self._marked is not None:
            self._marked = None
            self._paint()

    def _messages_in_view(self) -> list[Message]:
        column, top = self._column, self.scroll_offset.y
        if not column.messages or column.frame is None:
            return []
        first = column.message_at(max(1, top)) or 0
        last = column.message_at(top + self.size.height - 1)
        return column.messages[first : (len(column.messages) if last is None else last + 1)]

    # What is clicked

    def action_link(self, href: str) -> None:
        """Open a web link, and nothing else."""
        if href.startswith(WEB):
            self.app.open_url(href)

    def action_fold(self, key: str) -> None:
        """Show or hide what is folded in an entry."""
        self._follows = False
        with self._kept():
            self._keys[key].fold()
        self._follows = self.scroll_offset.y >= self.max_scroll_y

    def action_step(self, key: str, step: int) -> None:
        """Ask for another version of a message."""
        self.post_message(self.Step(key, step))

    def action_end(self) -> None:
        """Go to the end."""
        self.jump_to_end()
