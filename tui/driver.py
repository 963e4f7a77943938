"""Textual's terminal drivers, made to survive what terminals and shells do to them."""

from __future__ import annotations

import codecs
import contextlib
import os
import selectors
import signal
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TextIO

from rich.control import Control
from textual import events
from textual.driver import Driver
from textual.geometry import Offset
from textual.message import Message

from edgespec.tui.pasting import PasteParser

if TYPE_CHECKING:
    from textual.app import App


class _Steady:
    """What `steady` puts before Textual's own methods, of which it uses those named here."""

    fileno: int
    is_inline: bool
    exit_event: threading.Event
    cursor_origin: tuple[int, int] | None
    process_message: Callable[[Message], None]
    suspend_application_mode: Callable[[], None]
    resume_application_mode: Callable[[], None]
    _auto_restart: bool
    _must_signal_resume: bool

    def run_input_thread(self) -> None:
        """Read the terminal until the app ends."""
        parser = PasteParser()
        decode = codecs.getincrementaldecoder("utf-8")(errors="ignore").decode
        with selectors.SelectSelector() as selector:
            selector.register(self.fileno, selectors.EVENT_READ)
            while not self.exit_event.is_set():
                if selector.select(0.1):
                    data = self._read()
                    if not data:  # hung up, which stays so; told only to whom it controlled
                        os.kill(os.getpid(), signal.SIGHUP)
                        self.exit_event.wait()
                        return
                    if text := decode(data):
                        self._handle(parser.feed(text))
                self._handle(parser.tick())

    def _read(self) -> bytes:
        try:
            return os.read(self.fileno, 1 << 16)
        except OSError:
            return b""

    def _handle(self, incoming: Iterable[Message]) -> None:
        for event in incoming:
            if isinstance(event, events.CursorPosition) and self.is_inline:
                self.cursor_origin = (event.x, event.y)
            else:
                self.process_message(event)

    def _sigcont_application(self, *_: object) -> None:
        """Take the terminal again, as the shell may have left it."""
        if self._auto_restart:
            if not self._must_signal_resume:
                self.suspend_application_mode()
                self._must_signal_resume = True
            self.resume_application_mode()


class _SteadyInline(_Steady):
    """Lets an inline app be stopped and continued, and an editor take the terminal meanwhile.

    Textual writes from the event loop here, where a terminal that is gone must not be an error: the
    app would end without the thread that reads the keyboard, and its process would stay.
    """

    _app: App[object]
    _file: TextIO
    start_application_mode: Callable[[], None]
    stop_application_mode: Callable[[], None]

    def __init__(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401 - Textual's own
        super().__init__(*arguments, **named)
        self._must_signal_resume = False
        signal.signal(signal.SIGTSTP, self._sigtstp_application)
        signal.signal(signal.SIGCONT, self._sigcont_application)

    def write(self, data: str) -> None:
        """Write to the terminal, if it is still there."""
        with contextlib.suppress(OSError):
            self._file.write(data)

    def flush(self) -> None:
        """Have it written now."""
        with contextlib.suppress(OSError):
            self._file.flush()

    @property
    def can_suspend(self) -> bool:
        """Another program can have the terminal for a while."""
        return True

    def _sigtstp_application(self, *_: object) -> None:
        if self._auto_restart:
            self.suspend_application_mode()
            self._must_signal_resume = True
        os.kill(os.getpid(), signal.SIGSTOP)

    def suspend_application_mode(self) -> None:
        """Wipe what is drawn, and give the terminal back."""
        app = self._app
        self.write(Control.move(*-app._previous_cursor_position).segment.text)
        app._previous_cursor_position = Offset(0, 0)
        self.stop_application_mode()

    def resume_application_mode(self) -> None:
        """Draw on from where the cursor is now."""
        self.start_application_mode()
        if self._must_signal_resume:
            self._must_signal_resume = False
            self._app.post_message(Driver.SignalResume())


def steady(driver_class: type[Driver]) -> type[Driver]:
    """The driver with three things mended; drivers that read no terminal stay as they are.

    *Invalid bytes* (a paste in another encoding, line noise) are left out; Textual's own decoder is
    strict, and its input thread ends the app with a traceback. *Long pastes*: see `PasteParser`.
    *Going on after a stop*: Textual takes every SIGCONT for the end of a stop by SIGTSTP. After
    SIGSTOP it would start a second thread that reads the keyboard, and take the terminal's raw mode
    for the one to restore at the end.
    """
    if os.name != "posix":
        return driver_class
    from textual.drivers.linux_driver import LinuxDriver

    if not issubclass(driver_class, LinuxDriver):
        return driver_class
    return type("SteadyDriver", (_Steady, driver_class), {})


def inline_driver() -> type[Driver] | None:
    """Textual's driver that draws below the prompt, mended likewise; None on Windows."""
    if os.name != "posix":
        return None
    from textual.drivers.linux_inline_driver import LinuxInlineDriver

    return type("SteadyInlineDriver", (_SteadyInline, LinuxInlineDriver), {})
