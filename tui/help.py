"""The help screen: keys, commands, and what the numbers in the status bar mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from edgespec.tui.commands import COMMANDS, Group, keys_of
from edgespec.tui.stats import FIGURES

BOX_KEYS = (
    ("Enter", "send the message"),
    ("Shift+Enter, Ctrl+J", "new line"),
    ("Up in an empty box", "recall sent messages"),
    ("@", "attach a file"),
    ("/", "give a command; // sends a slash"),
    ("Page up, Page down", "scroll the conversation"),
    ("Ctrl+C", "copy the selection, stop, or quit"),
    ("Ctrl+P", "search all commands"),
)

NUMBERS = (
    ("tok/s", "tokens per second of the answer, after its first"),
    ("1.8x", "speed against plain decoding as measured on this machine"),
    ("accepted", "drafted tokens that the model itself would have said"),
    ("context", "tokens in use, of those the model can see"),
    ("identical", "answers are the same bytes as without drafting"),
    ("near-ties", "the same but where two tokens are almost equally likely"),
)


Row = tuple[str, str]
WIDE = 80
"""Columns of a terminal in which a name and its meaning share a line."""
GROUPS: tuple[Group, ...] = ("Answer", "Message", "Conversation", "View", "App")


def command_rows(group: Group, keymap: Mapping[str, str]) -> list[Row]:
    """Keys and word of each command of `group`, and what it does."""
    return [
        (f"{keys_of(each, keymap):11} /{each.slash}", each.help)
        for each in COMMANDS
        if each.group == group
    ]


def table(rows: Iterable[Row], column: int) -> Content:
    """Names and meanings, which begin at `column`, or on lines of their own if that is 0."""
    gap = " " * 2
    lines = [
        Content.assemble((f"{name:{column}}", "bold"), meaning)
        if column
        else Content.assemble((name, "bold"), f"\n{gap}{meaning}")
        for name, meaning in rows
    ]
    return Content("\n").join(lines)


class HelpScreen(ModalScreen[None]):
    """Lies over the chat until Escape or F1."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,f1,q,enter", "dismiss", "Close", show=False),
    ]

    def compose(self) -> ComposeResult:
        """One column, scrolled where the terminal is low."""
        wide = self.app.size.width >= WIDE
        with VerticalScroll(id="help") as column:
            column.border_title = "Help"
            column.border_subtitle = "Escape closes"
            yield Static(table(BOX_KEYS, 25 * wide))
            for group in GROUPS:
                yield Static(group, classes="help-group")
                yield Static(table(command_rows(group, self.app._keymap), 25 * wide))
            yield Static("Numbers", classes="help-group")
            yield Static(table((*NUMBERS, *FIGURES), 20 * wide))
