"""The help screen: the keys, and what the numbers in the status bar mean."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from edgespec.tui.stats import FIGURES

KEYS = (
    ("Enter", "send the message"),
    ("Shift+Enter, Ctrl+J", "new line"),
    ("Up in an empty box", "recall sent messages"),
    ("Page up, Page down", "scroll the conversation"),
    ("Escape", "stop the answer; what is there stays"),
    ("Ctrl+C", "copy the selection, stop, or quit"),
    ("Ctrl+Y", "copy the last answer"),
    ("Ctrl+R", "send again what the engine died of or in"),
    ("Ctrl+N", "new conversation"),
    ("Ctrl+P", "commands and themes"),
    ("Ctrl+Q", "quit"),
)

NUMBERS = (
    ("tok/s", "tokens per second of the answer, after its first"),
    ("1.8x", "speed against plain decoding as measured on this machine"),
    ("accepted", "drafted tokens that the model itself would have said"),
    ("context", "tokens in use, of those the model can see"),
    ("identical", "answers are the same bytes as without drafting"),
    ("near-ties", "the same but where two tokens are almost equally likely"),
)


def _table(rows: tuple[tuple[str, str], ...]) -> Content:
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
            yield Static(_table(KEYS))
            yield Static(_table((*NUMBERS, *FIGURES)), id="help-numbers")
