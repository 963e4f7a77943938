"""The library: what was said before, found by its words; empty, the conversations last spoken in.

Enter goes on with a conversation, at the message that was found. The list below holds chats or
hits; what waits for the disk runs in `Disk`, and only the newest search is shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from edgespec.chats import ChatHead, ChatHit, History
from edgespec.errors import EdgeSpecError
from edgespec.tui.disk import Disk
from edgespec.tui.plain import plain

_MOST_SHOWN = 200
_TITLE = "Conversations"
_HINT = "Enter open · ^R rename · ^B pin · ^K copy · ^D delete · Esc back"


@dataclass(frozen=True, slots=True)
class Opened:
    """The chat to go on with, at this message if one was searched for."""

    chat: str
    message: int | None = None


class LibraryScreen(ModalScreen[Opened | None]):
    """One list and one box above it; dismissed with what is to be opened."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "Back", show=False),
        Binding("down", "move(1)", "Down", show=False, priority=True),
        Binding("up", "move(-1)", "Up", show=False, priority=True),
        Binding("pagedown", "move(10)", "Page down", show=False, priority=True),
        Binding("pageup", "move(-10)", "Page up", show=False, priority=True),
        Binding("ctrl+r", "rename", "Rename", show=False, priority=True),
        Binding("ctrl+b", "pin", "Pin", show=False, priority=True),
        Binding("ctrl+k", "copy", "Copy", show=False, priority=True),
        Binding("ctrl+d", "delete", "Delete", show=False, priority=True),
        Binding("ctrl+z", "undo", "Undo", show=False, priority=True),
    ]

    def __init__(self, history: History, disk: Disk, text: str = "") -> None:
        """Begin with a search for `text`, if there is any."""
        super().__init__()
        self._history = history
        self._disk = disk
        self._first_text = text
        self._rows: list[ChatHead | ChatHit] = []
        self._deleted: str | None = None
        self._renaming: ChatHead | None = None

    def compose(self) -> ComposeResult:
        """Box, list, keys."""
        with Vertical(id="library") as column:
            column.border_title = _TITLE
            yield Input(
                self._first_text, placeholder="search all that was said", id="search", compact=True
            )
            found = OptionList(id="found", compact=True)
            found.can_focus = False
            yield found
            yield Static(_HINT, id="library-hint", markup=False)

    def on_mount(self) -> None:
        """Show what there is."""
        self.query_one(Input).focus()
        self._refresh()

    # Searching

    @on(Input.Changed, "#search")
    def _changed(self) -> None:
        if self._renaming is None:
            self._refresh()

    @work(exclusive=True, group="library")
    async def _refresh(self, select: str | None = None) -> None:
        """Look again, and select the row of the chat `select` if it is there."""
        text = self.query_one(Input).value.strip()
        try:
            rows = await self._disk.run(lambda: self._find(text))
        except EdgeSpecError as error:
            self._say(str(error))
            return
        self._show(rows, select)

    def _find(self, text: str) -> list[ChatHead | ChatHit]:
        if text:
            return [*self._history.search(text, _MOST_SHOWN)]
        return [*self._history.recent(_MOST_SHOWN)]

    def _show(self, rows: list[ChatHead | ChatHit], select: str | None) -> None:
        found = self.query_one(OptionList)
        self._rows = rows
        now = time.time()
        found.clear_options()
        found.add_options([Option(row_content(row, now)) for row in rows])
        if rows:
            places = [place for place, row in enumerate(rows) if _chat_of(row) == select]
            found.highlighted = places[0] if places else 0
        is_search = bool(self.query_one(Input).value.strip())
        nothing = "nothing found" if is_search else "nothing was said yet"
        self._say(_HINT if rows else f"{nothing} · Esc back")

    # Keys

    def action_back(self) -> None:
        """Leave the renaming, the search, then the screen."""
        box = self.query_one(Input)
        if self._renaming is not None:
            self._end_renaming()
        elif box.value:
            box.value = ""
        else:
            self.dismiss(None)

    def action_move(self, by: int) -> None:
        """Go up or down in the list while the box keeps the focus."""
        found = self.query_one(OptionList)
        if self._rows:
            place = (found.highlighted or 0) + by
            found.highlighted = min(max(place, 0), len(self._rows) - 1)

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        head = self._renaming
        if head is None:
            self._open()
            return
        title = " ".join(event.value.split())
        self._end_renaming()
        if title:
            self._change(lambda: self._history.rename(head.id, title), head.id)

    @on(OptionList.OptionSelected)
    def _selected(self) -> None:
        self._open()

    def _open(self) -> None:
        row = self._row
        if isinstance(row, ChatHit):
            self.dismiss(Opened(row.chat, None if row.role == "title" else row.message))
        elif row is not None:
            self.dismiss(Opened(row.id))

    def action_rename(self) -> None:
        """Edit the title in the box."""
        row = self._row
        if row is None or self._renaming is not None:
            return
        self._renaming = row if isinstance(row, ChatHead) else _head_of(row)
        box = self.query_one(Input)
        box.value = self._renaming.title
        self.query_one("#library").border_title = "New title"
        box.cursor_position = len(box.value)
        self._say("Enter renames · Esc leaves it")

    def _end_renaming(self) -> None:
        self._renaming = None
        box = self.query_one(Input)
        self.query_one("#library").border_title = _TITLE
        box.value = ""
        self._refresh()

    def action_pin(self) -> None:
        """Keep it at the head of the list, or no longer."""
        row = self._row
        if isinstance(row, ChatHead):
            self._change(lambda: self._history.pin(row.id, not row.is_pinned), row.id)

    def action_copy(self) -> None:
        """A new conversation with what is said in this one."""
        row = self._row
        if row is None:
            return
        chat = _chat_of(row)

        def copy() -> None:
            found = self._history.load(chat)
            if found is not None and found.tip is not None:
                self._history.copy(chat, found.tip)

        self._change(copy, chat, "copied: the copy is at the top")

    def action_delete(self) -> None:
        """Hide it; Ctrl+Z brings it back."""
        row = self._row
        if row is not None:
            self._deleted = chat = _chat_of(row)
            self._change(lambda: self._history.delete(chat), None, "deleted · ^Z brings it back")

    def action_undo(self) -> None:
        """Bring back what was deleted last."""
        chat, self._deleted = self._deleted, None
        if chat is not None:
            self._change(lambda: self._history.restore(chat), chat, "it is back")

    @work(group="library-change")
    async def _change(
        self, change: Callable[[], object], select: str | None, line: str = ""
    ) -> None:
        try:
            await self._disk.run(change)
        except EdgeSpecError as error:
            self._say(str(error))
            return
        await self._refresh(select).wait()
        if line:
            self._say(line)

    @property
    def _row(self) -> ChatHead | ChatHit | None:
        place = self.query_one(OptionList).highlighted
        return self._rows[place] if place is not None and place < len(self._rows) else None

    def _say(self, line: str) -> None:
        self.query_one("#library-hint", Static).update(plain(line))


def row_content(row: ChatHead | ChatHit, now: float) -> Content:
    """Two lines: the title, and what else there is to say; `now` is in seconds since 1970."""
    title = Content.styled(plain(row.title) or "Untitled", "bold")
    if isinstance(row, ChatHit):
        pieces = [
            Content.styled(plain(text), "bold $text-accent" if is_hit else "$text-muted")
            for text, is_hit in row.snippet
        ]
        role = {"user": "question", "title": "title"}.get(row.role, "answer")
        age = Content.styled(f"  {role} · {ago(now - row.created)}", "$text-muted")
        return Content.assemble(title, age, "\n", *pieces)
    facts = [ago(now - row.updated), f"{row.num_messages} messages"]
    if row.origin != "chat":
        facts.append(row.origin)
    if row.is_pinned:
        facts.insert(0, "pinned")
    return Content.assemble(title, "\n", Content.styled(" · ".join(facts), "$text-muted"))


def ago(seconds: float) -> str:
    """How long ago that is, in one unit.

    >>> ago(30), ago(3 * 3600), ago(40 * 86400)
    ('now', '3 h ago', '40 days ago')
    """
    for length, name in ((86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        number = int(seconds // length)
        if number >= 1:
            return f"{number} {'day' if name == 'days' and number == 1 else name} ago"
    return "now"


def _chat_of(row: ChatHead | ChatHit) -> str:
    return row.chat if isinstance(row, ChatHit) else row.id


def _head_of(hit: ChatHit) -> ChatHead:
    return ChatHead(hit.chat, hit.title, hit.created, hit.created, 0)
