"""A Textual app whose failures are an outcome: one line, never a traceback."""

from __future__ import annotations

import sys

from rich.console import RenderableType
from textual import on
from textual.app import App
from textual.driver import Driver

from edgespec.tui import clipboard
from edgespec.tui.driver import inline_driver, steady
from edgespec.tui.failure import describe
from edgespec.tui.options import ChatOutcome


class SteadyApp(App[ChatOutcome]):
    """Ends with a `ChatOutcome` even when a handler, Textual or the terminal's input fails."""

    def __init__(self, *, is_inline: bool = False) -> None:
        """`is_inline` draws below the shell's prompt, where the platform can."""
        super().__init__(driver_class=inline_driver() if is_inline else None)

    def get_driver_class(self) -> type[Driver]:
        """Textual's driver for this platform, with what terminals do to it mended."""
        return steady(super().get_driver_class())

    @on(Driver.SignalResume)
    def _paint_again(self) -> None:
        """Draw everything after a stop: the shell has cleared the screen."""
        self.refresh(layout=True)

    def copy_to_clipboard(self, text: str) -> None:
        """Copy by the way that works here; selections and cut text come through this, too."""
        clipboard.copy(self, text)

    def _fatal_error(self) -> None:
        """Leave with one line in place of the traceback that Textual prints for a handler."""
        self._give_up()

    def panic(self, *renderables: RenderableType) -> None:
        """Leave with one line in place of what Textual prints about itself."""
        self._give_up()

    def _give_up(self) -> None:
        failure = describe(sys.exc_info()[1] or self._exception or RuntimeError("terminal"))
        self._return_value = ChatOutcome(failure.exit_code, failure.line)
        self._close_messages_no_wait()
