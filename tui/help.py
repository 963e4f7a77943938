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

from edgespec.tui.commands import COMMANDS, keys_of

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


def command_rows(group: str, keymap: Mapping[str, str]) -> list[Row]:
    """Word, keys and meaning of each command of `group`."""
    return [
        (" · ".join(filter(None, [f"/{each.slash}", keys_of(each, keymap)])), each.help)
        for each in COMMANDS
        if each.group == group
    ]


def _table(rows: Iterable[Row]) -> Content:
    lines = [Content.assemble((name, "bold"), f"\n  {meaning}") for name, meaning in rows]
    return Content("\n").join(lines)


class HelpScreen(ModalScreen[None]):
    """Lies over the chat until Escape or F1."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,f1,q,enter", "dismiss", "Close", show=False),
    ]

    def compose(self) -> ComposeResult:
        """One column, scrolled where the terminal is low."""
        with VerticalScroll(id="help") as column:
            column.border_title = "Help"
            column.border_subtitle = "Escape closes"
            yield Static(_table(BOX_KEYS))
            for group in dict.fromkeys(command.group for command in COMMANDS):
                yield Static(group, classes="help-group")
                yield Static(_table(command_rows(group, self.app._keymap)))
            yield Static("Numbers", classes="help-group")
            yield Static(_table(NUMBERS))
