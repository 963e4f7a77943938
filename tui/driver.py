"""Textual's terminal drivers, made to survive bytes that are not UTF-8."""

from __future__ import annotations

from typing import Any

from textual.driver import Driver


def forgiving(driver_class: type[Driver]) -> type[Driver]:
    """The driver, reading on after invalid bytes (a paste in another encoding, line noise).

    Textual's own decoder is strict, and its input thread ends the app with a traceback. What was
    read together with the invalid bytes is dropped. Drivers that do not decode stay as they are.
    """
    if not hasattr(driver_class, "run_input_thread"):
        return driver_class
    base: Any = driver_class

    class ForgivingDriver(base):  # type: ignore[misc]
        def run_input_thread(self) -> None:
            """Start over where the strict decoder gave up."""
            while True:
                try:
                    super().run_input_thread()
                except UnicodeDecodeError:
                    continue
                return

    return ForgivingDriver
