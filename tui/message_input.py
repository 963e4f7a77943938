"""The box in which messages are written: several lines, sent by Enter.

What stands in the box is a draft: long pastes and attached files are chips (tui/chips.py). Behind
"/" and "@" a list offers commands and files (tui/completion.py).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import ClassVar

from textual import events
from textual.app import SuspendNotSupported
from textual.binding import Binding, BindingType
from textual.document._document import Selection
from textual.message import Message
from textual.reactive import reactive

from edgespec.errors import EdgeSpecError
from edgespec.tui import commands
from edgespec.tui.attachments import Attachment, read_attachment
from edgespec.tui.chip_area import ChipArea
from edgespec.tui.chips import Pasted, folds, shown
from edgespec.tui.completion import Completions, Query, command_choices, file_choices, query_at
from edgespec.tui.editor import edited
from edgespec.tui.files import entries_of, files_below, is_explicit
from edgespec.tui.history import InputHistory
from edgespec.tui.plain import plain

HINT_SECONDS = 3.0
MAX_PASTE = 4 << 20
"""Characters of a paste beyond which nothing is taken: no model reads that much."""
SEND_KEYS = ("enter",)
NEWLINE_KEYS = ("shift+enter", "ctrl+j", "alt+enter")
"""Only terminals with the Kitty keyboard protocol tell Shift+Enter and Alt+Enter from Enter;
Ctrl+J reaches the app from everywhere."""

CountTokens = Callable[[str], int | None]
"""Tokens of a text, None while no model is there to count them; called in a thread, may wait."""


class MessageInput(ChipArea):
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

    class FilesFound(Message):
        """A thread has listed files; `source` is what it was asked for."""

        def __init__(self, source: str, paths: list[str]) -> None:
            super().__init__()
            self.source = source
            self.paths = paths

    class Counted(Message):
        """A thread has counted the tokens of an attached file."""

        def __init__(self, label: str, chip: Attachment, num_tokens: int) -> None:
            super().__init__()
            self.label = label
            self.chip = chip
            self.num_tokens = num_tokens

    def __init__(
        self,
        history: Iterable[str] = (),
        count_tokens: CountTokens | None = None,
        root: Path | None = None,
    ) -> None:
        """`history` are earlier messages, the oldest first; files are looked for below `root`,
        the working directory by default."""
        super().__init__(id="input")
        # A still cursor: a blinking one redraws twice a second for as long as the chat is open.
        self.cursor_blink = False
        self._history = InputHistory(self.chips.draft(message) for message in history)
        self._sent: deque[tuple[str, str]] = deque(maxlen=4)
        self._count_tokens = count_tokens
        self._root = root or Path.cwd()
        self._completions = Completions(self._choose)
        self._query: Query | None = None
        self._dismissed: int | None = None
        self._files: dict[str, list[str]] = {}
        self._is_chord = False

    async def on_mount(self) -> None:
        """Put the list of completions over the screen."""
        await self.screen.mount(self._completions)

    def on_unmount(self) -> None:
        """Have threads that still list files end."""
        self._files.clear()

    # Keys

    async def _on_key(self, event: events.Key) -> None:
        """Send or break the line; Textual calls the text area's own handler for all other keys.

        Not bindings with priority: those overtake characters that are still in the box's queue.
        """
        was_chord, self._is_chord = self._is_chord, False
        if self._completions.is_open and self._key_of_list(event.key):
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

    def _key_of_list(self, key: str) -> bool:
        """Do what `key` does in the list of completions; False if it does nothing there."""
        if key == "up":
            self._completions.action_cursor_up()
        elif key == "down":
            self._completions.action_cursor_down()
        elif key == "escape":
            self._dismissed = self._query.start if self._query is not None else None
            self._completions.close()
        elif key == "tab":
            self._choose()
        elif key == "enter" and not isinstance(commands.read(self.text), commands.Given):
            self._choose(run=True)
        else:
            return False
        return True

    async def _on_paste(self, event: events.Paste) -> None:
        """Take what cannot drive the terminal; a long paste becomes a chip."""
        event.prevent_default()
        event.stop()
        if len(event.text) > MAX_PASTE:
            self.show_hint("more than 4 MiB is not pasted · write @path to attach a file")
            return
        text = plain(event.text.replace("\r\n", "\n").replace("\r", "\n"))
        if folds(text):
            self.insert_chip(Pasted(text))
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
            self.set_draft(self._history.older())
        else:
            super().action_cursor_up(select)

    def action_cursor_down(self, select: bool = False) -> None:
        """Move down; in a recalled message's last line, recall a newer message."""
        if not select and self.text and self._browsing and self.cursor_at_last_line:
            self.set_draft(self._history.newer())
        else:
            super().action_cursor_down(select)

    async def action_cursor_line_end(self, select: bool = False) -> None:  # type: ignore[override]
        """Move to the end of the line; in an empty box, show the end of the conversation."""
        if self.text or select:
            super().action_cursor_line_end(select)
        else:
            await self.run_action("app.command('end')")

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

    def attach(self, path: str = "") -> None:
        """Attach the file at `path`, or offer files; a hint says why one cannot be attached."""
        path = path.strip().removeprefix("@")
        if not path:
            self._replace_via_keyboard(self._spaced("@"), *self.selection)
            return
        try:
            chip = read_attachment(path, self._root)
        except EdgeSpecError as error:
            self.show_hint(plain(str(error)))
        else:
            label = self.insert_chip(chip)
            self._count(label, chip)

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
        self.set_timer(HINT_SECONDS, self._show_usual_hint, name="hint")

    def watch_usual_hint(self) -> None:
        """Show a new usual hint at once."""
        self._show_usual_hint()

    def _show_usual_hint(self) -> None:
        self.border_subtitle = self.usual_hint

    # Completion

    def watch_selection(self, _old: Selection, selection: Selection) -> None:
        """Offer what could stand at the cursor."""
        if not self.is_mounted:
            return
        row, column = selection.end
        line = self.document.get_line(row)
        self._query = query_at(line, row, column) if selection.is_empty else None
        if self._query is None or self._query.start != self._dismissed:
            self._dismissed = None
            self._offer()

    def _offer(self) -> None:
        query = self._query
        if query is None:
            self._completions.close()
            self._files.clear()
        elif query.kind == "command":
            choices = command_choices(query.text, self.app._keymap)
            self._completions.offer(choices, self.region)
        else:
            source = _source(query.text)
            if source not in self._files:
                self._files[source] = []
                self._start(self._list_files, source)
            self._completions.offer(file_choices(query.text, self._files[source]), self.region)

    def _choose(self, run: bool = False) -> None:
        """Put the highlighted row in the place of the query; `run` a command that is complete."""
        choice, query = self._completions.choice, self._query
        if choice is None or query is None:
            return
        row, column = self.cursor_location
        place = (row, query.start), (row, column)
        if query.kind == "command":
            command = commands.BY_ID[choice.value]
            space = "" if command.argument == "no" else " "
            self._replace_via_keyboard(f"/{command.slash}{space}", *place)
            if run and command.argument == "no":
                self.action_submit()
        elif choice.value.endswith("/"):
            self._replace_via_keyboard(f"@{choice.value}", *place)
        else:
            self.selection = Selection(*place)
            self.attach(choice.value)
        self.focus()

    def _list_files(self, source: str) -> None:
        def stopped() -> bool:
            return source not in self._files

        paths = entries_of(source, self._root) if source else files_below(self._root, stopped)
        self.post_message(self.FilesFound(source, paths))

    def on_message_input_files_found(self, event: FilesFound) -> None:
        """Offer the files, if they are still wanted."""
        event.stop()
        if event.source in self._files:
            self._files[event.source] = event.paths
            if self._query is not None and self._query.start != self._dismissed:
                self._offer()

    # Tokens of attached files

    def _count(self, label: str, chip: Attachment) -> None:
        count = self._count_tokens
        if count is not None:
            self._start(self._count_in_thread, count, label, chip)

    def _count_in_thread(self, count: CountTokens, label: str, chip: Attachment) -> None:
        try:
            num_tokens = count(chip.text)
        except EdgeSpecError:  # the host died: the size in KB stays
            return
        if num_tokens is not None:
            self.post_message(self.Counted(label, chip, num_tokens))

    def on_message_input_counted(self, event: Counted) -> None:
        """Show the size in tokens."""
        event.stop()
        self.rename_chip(event.label, event.chip, event.num_tokens)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        # No Textual worker: the interpreter would wait for its thread at the end.
        threading.Thread(target=work, args=arguments, name="message box", daemon=True).start()

    def _spaced(self, text: str) -> str:
        """`text` after a space, unless it would stand at a line's begin or after one already."""
        row, column = min(self.selection)
        before = self.document.get_line(row)[:column]
        return f" {text}" if before and not before[-1].isspace() else text


def _source(query: str) -> str:
    """What has to be listed for `query`: "" for the files below the root, else a folder."""
    return query[: query.rfind("/") + 1] or query if is_explicit(query) else ""
