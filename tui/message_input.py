"""The box in which messages are written: several lines, sent by Enter.

What stands in the box is a draft: long pastes and attached files are chips (tui/chips.py). Behind
"/" and "@" a list offers commands and files (tui/completion.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from textual import events
from textual.app import SuspendNotSupported
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.reactive import reactive
from textual.timer import Timer

from edgespec.errors import EdgeSpecError
from edgespec.tui import commands
from edgespec.tui.chips import Pasted, folds, shown
from edgespec.tui.completing_area import CompletingArea, CountTokens
from edgespec.tui.editor import edited
from edgespec.tui.history import InputHistory
from edgespec.tui.plain import plain

HINT_SECONDS = 3.0
MAX_PASTE = 4 << 20
"""Characters of a paste beyond which nothing is taken: no model reads that much."""
SEND_KEYS = ("enter",)
NEWLINE_KEYS = ("shift+enter", "ctrl+j", "alt+enter")
"""Only terminals with the Kitty keyboard protocol tell Shift+Enter and Alt+Enter from Enter;
Ctrl+J reaches the app from everywhere."""


class MessageInput(CompletingArea):
    """A text area that grows with its text, sends on Enter and recalls sent messages."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *commands.bindings("app."),
        Binding("ctrl+shift+z", "redo", "Redo", show=False),
        Binding("pageup", "app.scroll_transcript(-1)", "Scroll up", show=False),
        Binding("pagedown", "app.scroll_transcript(1)", "Scroll down", show=False),
    ]

    usual_hint: reactive[str] = reactive("")
    """Stands in the frame while there is nothing else to say: the keys that matter now."""

    class Submitted(Message):
        """The user wants `text` sent; `shown` is what they see of it, with chips folded.

        Whoever cannot send it calls `give_back`.
        """

        def __init__(self, text: str, shown: str) -> None:
            super().__init__()
            self.text = text
            self.shown = shown

    class CommandGiven(Message):
        """The user typed "/word argument"; `command` is an id of `commands.COMMANDS`."""

        def __init__(self, command: str, argument: str) -> None:
            super().__init__()
            self.command = command
            self.argument = argument

    def __init__(
        self,
        history: Iterable[str] = (),
        count_tokens: CountTokens | None = None,
        root: Path | None = None,
    ) -> None:
        """`history` are earlier messages, the oldest first; files are looked for below `root`,
        the working directory by default."""
        super().__init__("input", root, count_tokens)
        # A still cursor: a blinking one redraws twice a second for as long as the chat is open.
        self.cursor_blink = False
        self._history = InputHistory(self.chips.draft(message) for message in history)
        self._sent: deque[tuple[str, str]] = deque(maxlen=4)
        self._is_chord = False
        self._hint_timer: Timer | None = None

    # Keys

    async def _on_key(self, event: events.Key) -> None:
        """Send or break the line; Textual calls the text area's own handler for all other keys.

        Not bindings with priority: those overtake characters that are still in the box's queue.
        """
        was_chord, self._is_chord = self._is_chord, False
        if self._completions.is_open and self.key_of_list(event.key):
            pass
        elif event.key in SEND_KEYS:
            self.action_submit()
        elif event.key in NEWLINE_KEYS:
            self.action_newline()
        elif event.key == "ctrl+x" and self.selection.is_empty:
            self._is_chord = True
        elif event.key == "ctrl+e" and was_chord:
            self.open_editor()
        else:
            return
        event.stop()
        event.prevent_default()

    async def _on_paste(self, event: events.Paste) -> None:
        """Take what cannot drive the terminal; a long paste becomes a chip."""
        event.prevent_default()
        event.stop()
        if len(event.text) > MAX_PASTE:
            self.show_hint("more than 4 MiB is not pasted · write @path to attach a file")
            return
        text = plain(event.text.replace("\r\n", "\n").replace("\r", "\n"))
        if folds(text):
            self.insert_chip(Pasted(text), self.selection)
        else:
            self._replace_via_keyboard(text, *self.selection)

    def action_submit(self) -> None:
        """Send the text, without the empty lines around it, or do the command that it is."""
        draft = self.text.rstrip().lstrip("\n")
        meant = commands.read(draft)
        if isinstance(meant, commands.Mistyped):
            self.show_hint(meant.line)
        elif draft:
            self.set_draft("")
            self._history.add(draft)
            if isinstance(meant, commands.Given):
                argument = self.chips.expand(meant.argument)
                self.post_message(self.CommandGiven(meant.command.id, argument))
            else:
                text = self.chips.expand(meant.text)
                self._sent.append((text, draft))
                self.post_message(self.Submitted(text, shown(meant.text)))

    def action_newline(self) -> None:
        """Break the line at the cursor."""
        self._replace_via_keyboard("\n", *self.selection)
        self.scroll_cursor_visible()

    def action_cursor_up(self, select: bool = False) -> None:
        """Move up; in an empty box or a recalled message's first line, recall an older message."""
        if not select and self._browsing and self.cursor_at_first_line:
            self._recall(self._history.older())
        else:
            super().action_cursor_up(select)

    def action_cursor_down(self, select: bool = False) -> None:
        """Move down; in a recalled message's last line, recall a newer message."""
        if not select and self.text and self._browsing and self.cursor_at_last_line:
            self._recall(self._history.newer())
        else:
            super().action_cursor_down(select)

    async def action_cursor_line_end(self, select: bool = False) -> None:  # type: ignore[override]
        """Move to the end of the line; in an empty box, show the end of the conversation."""
        if self.text or select:
            super().action_cursor_line_end(select)
        else:
            await self.run_action("app.command('end')")

    def _recall(self, draft: str) -> None:
        """Show an earlier message; up and down go on in the history, not in a list for it."""
        self.set_draft(draft)
        self.dismiss()

    @property
    def _browsing(self) -> bool:
        """True if the box holds nothing of its own: empty, or a recalled message, unchanged."""
        if not self.text:
            self._history.leave()
        return self.text == self._history.current

    # What the app asks of the box

    def remember(self, message: str) -> None:
        """Remember a message that was sent without passing through the box."""
        self._history.add(self.chips.draft(message))

    def recall(self, messages: Iterable[str]) -> None:
        """Messages of earlier chats, the oldest first, come before those of this one."""
        self._history.extend_left([self.chips.draft(message) for message in messages])

    def replace_message(self, message: str) -> None:
        """Have the box hold `message` and nothing else."""
        self.set_draft(self.chips.draft(message))

    def give_back(self, message: str) -> None:
        """Put a message that came to nothing before what has been typed since."""
        draft = dict(self._sent).get(message) or self.chips.draft(message)
        self.set_draft(f"{draft}\n{self.text}" if self.text else draft)

    def begin_command(self, command: str) -> None:
        """Write "/word " before what stands in the box, for its argument to be typed."""
        self.set_draft(f"/{commands.BY_ID[command].slash} {self.text}")

    def open_editor(self) -> None:
        """Have the user's editor change the draft; attached files and pastes stay labels there."""
        try:
            with self.app.suspend():
                draft, failure = self._edited()
        except SuspendNotSupported:
            self.show_hint("an editor needs a terminal of its own")
            return
        if failure:
            self.show_hint(failure)
        else:
            self.replace(plain(draft), (0, 0), self.document.end, maintain_selection_offset=False)

    def _edited(self) -> tuple[str, str]:
        """The draft from the editor, or what went wrong: an exception would leave the app
        suspended."""
        try:
            return edited(self.text), ""
        except EdgeSpecError as error:
            return "", str(error)

    def show_hint(self, hint: str) -> None:
        """Say `hint` in the frame for a while, then the usual hint again."""
        self.border_subtitle = hint.replace("[", r"\[")
        if self._hint_timer is not None:  # an older hint's end is not this one's
            self._hint_timer.stop()
        self._hint_timer = self.set_timer(HINT_SECONDS, self._show_usual_hint, name="hint")

    def watch_usual_hint(self) -> None:
        """Show a new usual hint at once."""
        self._show_usual_hint()

    def _show_usual_hint(self) -> None:
        self.border_subtitle = self.usual_hint
