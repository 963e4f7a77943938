"""A terminal too small to chat in: told instead of drawing scraps."""

from __future__ import annotations

from textual import events
from textual.app import ComposeResult
from textual.geometry import Size
from textual.screen import ModalScreen
from textual.widgets import Static

LEAST = Size(30, 9)


class TooSmallScreen(ModalScreen[None]):
    """Stands over all others until the terminal has grown."""

    DEFAULT_CSS = """
    TooSmallScreen {
        align: center middle;
        background: $background;
    }
    TooSmallScreen > Static {
        width: auto;
        max-width: 100%;
        text-align: center;
    }
    """

    def compose(self) -> ComposeResult:
        """Why nothing else is shown, and what can be done."""
        least = f"{LEAST.width} x {LEAST.height}"
        yield Static(f"The terminal is too small: {least} at least.\nCtrl+Q quits")

    def on_resize(self, event: events.Resize) -> None:
        """Give way when there is room."""
        if not is_too_small(self.app.size) and self.is_current:
            self.dismiss(None)


def is_too_small(size: Size) -> bool:
    """Whether box, status and a few lines of the conversation do not fit."""
    return size.width < LEAST.width or size.height < LEAST.height
