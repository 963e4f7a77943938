"""The box in which messages are written: several lines, sent by Enter."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.reactive import reactive
from textual.widgets import TextArea

from edgespec.tui.history import InputHistory
from edgespec.tui.plain import plain

HINT_SECONDS = 3.0
SEND_KEYS = ("enter",)
NEWLINE_KEYS = ("shift+enter", "ctrl+j", "alt+enter")
"""Only terminals with the Kitty keyboard protocol tell Shift+Enter and Alt+Enter from Enter;
Ctrl+J reaches the app from everywhere."""


class MessageInput(TextArea):
    """A text area that grows with its text, sends on Enter and recalls sent messages."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+y", "app.copy_answer", "Copy answer", show=False),
        Binding("ctrl+shift+z", "redo", "Redo", show=False),
        Binding("pageup", "app.scroll_transcript(-1)", "Scroll up", show=False),
        Binding("pagedown", "app.scroll_transcript(1)", "Scroll down", show=False),
    ]

    usual_hint: reactive[str] = reactive("")
    """Stands in the frame while there is nothing else to say: the keys that matter now."""

    class Submitted(Message):
        """The user wants `text` sent; whoever cannot send it calls `give_back`."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def __init__(self) -> None:
        super().__init__(
            id="input", soft_wrap=True, show_line_numbers=False, highlight_cursor_line=False
        )
        # A still cursor: a blinking one redraws twice a second for as long as the chat is open.
        self.cursor_blink = False
        self._history = InputHistory()

    async def _on_key(self, event: events.Key) -> None:
        """Send or break the line; Textual calls the text area's own handler for all other keys.

        Not bindings with priority: those overtake characters that are still in the box's queue.
        """
        if event.key in SEND_KEYS:
            event.stop()
            event.prevent_default()
            self.action_submit()
        elif event.key in NEWLINE_KEYS:
            event.stop()
            event.prevent_default()
            self.action_newline()

    async def _on_paste(self, event: events.Paste) -> None:
        """Have the text area's own handler paste what cannot drive the terminal."""
        event.text = plain(event.text)

    def remember(self, message: str) -> None:
        """Remember a message that was sent without passing through the box."""
        self._history.add(message)

    def show_hint(self, hint: str) -> None:
        """Say `hint` in the frame for a while, then the usual hint again."""
        self.border_subtitle = hint
        self.set_timer(HINT_SECONDS, self._show_usual_hint, name="hint")

    def watch_usual_hint(self) -> None:
        """Show a new usual hint at once."""
        self._show_usual_hint()

    def _show_usual_hint(self) -> None:
        self.border_subtitle = self.usual_hint

    def give_back(self, message: str) -> None:
        """Put a message that came to nothing before what has been typed since."""
        typed = f"\n{self.text}" if self.text else ""
        self._replace_text(message + typed)

    def action_submit(self) -> None:
        """Send the text, without the empty lines around it, if there is any."""
        text = self.text.rstrip().lstrip("\n")
        if text:
            self.clear()
            self._history.add(text)
            self.post_message(self.Submitted(text))

    def action_newline(self) -> None:
        """Break the line at the cursor."""
        self.insert("\n")
        self.scroll_cursor_visible()

    def action_cursor_up(self, select: bool = False) -> None:
        """Move up; in an empty box or a recalled message's first line, recall an older message."""
        if not select and self._browsing and self.cursor_at_first_line:
            self._replace_text(self._history.older())
        else:
            super().action_cursor_up(select)

    def action_cursor_down(self, select: bool = False) -> None:
        """Move down; in a recalled message's last line, recall a newer message."""
        if not select and self.text and self._browsing and self.cursor_at_last_line:
            self._replace_text(self._history.newer())
        else:
            super().action_cursor_down(select)

    @property
    def _browsing(self) -> bool:
        """True if the box holds nothing of its own: empty, or a recalled message, unchanged."""
        if not self.text:
            self._history.leave()
        return self.text == self._history.current

    def _replace_text(self, text: str) -> None:
        self.text = plain(text)
        self.move_cursor(self.document.end)
