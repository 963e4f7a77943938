"""A Textual app whose failures are an outcome: one line, never a traceback."""

from __future__ import annotations

import sys

from rich.console import RenderableType
from textual.app import App
from textual.driver import Driver

from edgespec.tui.driver import forgiving
from edgespec.tui.failure import describe
from edgespec.tui.options import ChatOutcome


class SteadyApp(App[ChatOutcome]):
    """Ends with a `ChatOutcome` even when a handler, Textual or the terminal's input fails."""

    def get_driver_class(self) -> type[Driver]:
        """Textual's driver for this platform, forgiving invalid input."""
        return forgiving(super().get_driver_class())

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
