"""Copying within a real tmux."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import tui_support

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")

PROGRAM = """
from edgespec.tui import run_chat
from tui_support import ScriptedCompleter
run_chat(ScriptedCompleter("Hello *there*."))
"""


class Tmux:
    """A tmux server of the test's own, with one window that runs the chat."""

    def __init__(self, folder: Path) -> None:
        self._socket = str(folder / "tmux")
        program = folder / "chat.py"
        program.write_text(PROGRAM)
        self.run("-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "30",
                 f"exec {sys.executable} {program}")  # fmt: skip

    def run(self, *arguments: str) -> str:
        environ = {name: value for name, value in os.environ.items() if name not in KEPT_OUT}
        environ["PYTHONPATH"] = str(Path(tui_support.__file__).parent)
        command = ["tmux", "-S", self._socket, *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=20, env=environ
        )
        return done.stdout

    def until_shown(self, text: str) -> None:
        deadline = time.monotonic() + 20
        while text not in (pane := self.run("capture-pane", "-p")):
            assert time.monotonic() < deadline, pane
            time.sleep(0.05)


KEPT_OUT = ("TMUX", "WAYLAND_DISPLAY", "DISPLAY")


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    opened = Tmux(tmp_path)
    try:
        yield opened
    finally:
        opened.run("kill-server")


def test_an_answer_is_copied_to_the_buffer_of_tmux(tmux: Tmux) -> None:
    tmux.until_shown("ready")
    tmux.run("send-keys", "Hi", "Enter")
    tmux.until_shown("Hello there.")
    tmux.until_shown("ready")
    tmux.run("send-keys", "C-y")
    tmux.until_shown("copied to tmux's buffer; prefix ] pastes it")
    assert tmux.run("show-buffer") == "Hello *there*."
