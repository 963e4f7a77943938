"""A text area that offers commands behind "/", settings behind "/set" and files behind "@".

    cursor moves -> query_at -> offer -> a row is chosen -> "/word " or a chip for the query

Threads list files and count tokens; they post messages, and all state changes in handlers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from textual.document._document import Selection
from textual.message import Message

from edgespec.errors import EdgeSpecError
from edgespec.tui import commands
from edgespec.tui.attachments import Attachment, read_attachment
from edgespec.tui.chip_area import ChipArea
from edgespec.tui.completion import (
    Completions,
    Query,
    command_choices,
    file_choices,
    query_at,
    setting_choices,
)
from edgespec.tui.files import entries_of, files_below, is_explicit
from edgespec.tui.plain import plain

CountTokens = Callable[[str], int | None]
"""Tokens of a text, None while no model is there to count them; called in a thread, may wait."""


class CompletingArea(ChipArea):
    """A `ChipArea` with a list of completions above it, which it mounts on its screen."""

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

    def __init__(self, id: str, root: Path | None, count_tokens: CountTokens | None) -> None:
        super().__init__(id)
        self._root = root or Path.cwd()
        self._count_tokens = count_tokens
        self._completions = Completions(self._choose)
        self._query: Query | None = None
        self._dismissed: int | None = None
        self._files: dict[str, list[str]] = {}

    async def on_mount(self) -> None:
        """Put the list of completions over the screen."""
        await self.screen.mount(self._completions)

    def on_unmount(self) -> None:
        """Have threads that still list files end."""
        self._files.clear()

    def show_hint(self, hint: str) -> None:
        """Say in one line why something was not done."""
        raise NotImplementedError

    def action_submit(self) -> None:
        """Do the command that is the text."""
        raise NotImplementedError

    def attach(self, path: str = "") -> None:
        """Attach the file at `path`, or offer files; a hint says why one cannot be attached."""
        path = path.strip().removeprefix("@")
        if path:
            self._attach_file(path, self.selection)
        else:
            self._replace_via_keyboard(self._spaced("@"), *self.selection)

    def dismiss(self) -> None:
        """Offer nothing for what stands at the cursor."""
        self._dismissed = self._query.start if self._query is not None else None
        self._completions.close()

    def _attach_file(self, path: str, place: Selection) -> None:
        try:
            chip = read_attachment(path, self._root)
        except EdgeSpecError as error:
            self.show_hint(plain(str(error)))
        else:
            self._count(self.insert_chip(chip, place), chip)

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

    def on_resize(self) -> None:
        """Keep the list above the box."""
        if self._completions.is_open:
            self.call_after_refresh(self._offer)

    def _offer(self) -> None:
        query = self._query
        if query is None:
            self._completions.close()
            self._files.clear()
        elif query.kind == "command":
            choices = command_choices(query.text, self.app._keymap)
            self._completions.offer(choices, self.region)
        elif query.kind == "setting":
            self._completions.offer(setting_choices(query.text), self.region)
        else:
            source = _source(query.text)
            if source not in self._files:
                self._files[source] = []
                self._start(self._list_files, source)
            self._completions.offer(file_choices(query.text, self._files[source]), self.region)

    def key_of_list(self, key: str) -> bool:
        """Do what `key` does in the list of completions; False if it does nothing there."""
        if key == "up":
            self._completions.action_cursor_up()
        elif key == "down":
            self._completions.action_cursor_down()
        elif key == "escape":
            self.dismiss()
        elif key == "tab":
            self._choose()
        elif key == "enter" and self._is_to_choose:
            self._choose(run=True)
        else:
            return False
        return True

    @property
    def _is_to_choose(self) -> bool:
        """Whether Enter takes the highlighted row: not where what stands there can be done."""
        query, choice = self._query, self._completions.choice
        if query is not None and choice is not None and query.kind == "setting":
            return choice.value != query.text and bool(query.text or self._completions.highlighted)
        return not isinstance(commands.read(self.text), commands.Given)

    def _choose(self, run: bool = False) -> None:
        """Put the highlighted row in the place of the query; `run` a command that is complete."""
        choice, query = self._completions.choice, self._query
        if choice is None or query is None:
            return
        row, column = self.cursor_location
        place = Selection((row, query.start), (row, column))
        if query.kind == "command":
            command = commands.BY_ID[choice.value]
            space = "" if command.argument == "no" else " "
            self._replace_via_keyboard(f"/{command.slash}{space}", *place)
            if run and command.argument == "no":
                self.action_submit()
        elif query.kind == "setting":
            self._replace_via_keyboard(f"{choice.value} ", *place)
        elif choice.value.endswith("/"):
            self._replace_via_keyboard(f"@{choice.value}", *place)
        else:
            self._attach_file(choice.value, place)
        self.focus()

    def _list_files(self, source: str) -> None:
        def stopped() -> bool:
            return source not in self._files

        paths = entries_of(source, self._root) if source else files_below(self._root, stopped)
        self.post_message(self.FilesFound(source, paths))

    def on_completing_area_files_found(self, event: FilesFound) -> None:
        """Offer the files, if they are still wanted."""
        event.stop()
        if event.source in self._files:
            self._files[event.source] = event.paths
            if self._query is not None and self._query.start != self._dismissed:
                self._offer()

    # Tokens of attached files

    def count_attached(self) -> None:
        """Show the sizes in tokens of the files in the box: there is a model to count them."""
        for label in self.labels():
            chip = self.chips.chip(label)
            if isinstance(chip, Attachment):
                self._count(label, chip)

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

    def on_completing_area_counted(self, event: Counted) -> None:
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
