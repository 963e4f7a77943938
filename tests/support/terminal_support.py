"""A process in a pseudo-terminal, and what it leaves of that."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path

import tui_support

CHAT = """
import sys, time
from edgespec.errors import ModelFileError
from edgespec.tui import ChatOptions, run_chat
from tui_support import ScriptedCompleter

def factory(report):
    report("opening the model")
    {load}
    return ScriptedCompleter("Hello **there**.")

end = run_chat(factory, ChatOptions(inline="--inline" in sys.argv))
print(end.said)
print(f"outcome {{end.exit_code}} {{end.message}}", file=sys.stderr)
sys.exit(end.exit_code)
"""


class Terminal:
    """A process with a pseudo-terminal of its own, and everything it wrote there."""

    def __init__(self, program: str, *arguments: str, **env: str) -> None:
        self._leader, follower = pty.openpty()
        ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self.attributes_before = termios.tcgetattr(self._leader)
        paths = {"PYTHONPATH": str(Path(tui_support.__file__).parent), "TERM": "xterm-256color"}
        own_size = ("COLUMNS", "LINES")  # would be taken for the size of this terminal, too
        environment = {name: at for name, at in os.environ.items() if name not in own_size}
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            stdin=follower,
            stdout=follower,
            stderr=follower,
            env={**environment, **paths, **env},
            start_new_session=True,
        )
        os.close(follower)
        self.written = ""

    @property
    def attributes(self) -> list[object]:
        return termios.tcgetattr(self._leader)

    @property
    def shown(self) -> str:
        """What was written, without escape sequences; drawn over and over, so only for `in`."""
        return re.sub(r"\x1b(\[[0-9;?<>=$]*[a-zA-Z]|\][^\x07]*\x07|[()][A-Z0-9])", "", self.written)

    def resize(self, rows: int, columns: int) -> None:
        ioctl(self._leader, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process.send_signal(signal.SIGWINCH)

    def hang_up(self) -> None:
        """Take the terminal away without a word to the process, which it does not control."""
        os.close(self._leader)
        self._leader = os.open(os.devnull, os.O_RDWR)

    def press(self, keys: str) -> None:
        os.write(self._leader, keys.encode())

    def read(self) -> None:
        while select.select([self._leader], [], [], 0.02)[0]:
            try:
                data = os.read(self._leader, 65536)
            except OSError:  # the process has closed its end
                return
            if not data:
                return
            self.written += data.decode(errors="replace")

    def until_shown(self, text: str, seconds: float = 10) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.shown:
            assert time.monotonic() < deadline, f"no {text!r} in {self.shown[-2000:]!r}"
            self.read()

    def wait(self, seconds: float = 10) -> int:
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < deadline, "the process did not end"
            self.read()
        self.read()
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._leader)


def assert_restored(shown: Terminal) -> None:
    """The terminal is as it was: main screen, cursor, modes, line discipline."""
    for sequence in ("\x1b[?1049l", "\x1b[?25h", "\x1b[?2004l", "\x1b[<u"):
        assert sequence in shown.written
    assert shown.attributes == shown.attributes_before


@contextlib.contextmanager
def chat_terminal(load: str = "pass", *arguments: str, **env: str) -> Iterator[Terminal]:
    """A chat in a terminal, whose model is loaded by the statement `load`; or `--inline`."""
    opened = Terminal(CHAT.format(load=load), *arguments, **env)
    try:
        yield opened
    finally:
        opened.close()
