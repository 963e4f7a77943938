"""What the chat's figures are measured with: a pseudo-terminal as a window has one."""

from __future__ import annotations

import sys
from pathlib import Path

from chat_figures import Chat

PROGRAM = """
import os, signal, sys
signal.signal(signal.SIGWINCH, lambda *_: print(*os.get_terminal_size(), "columns", flush=True))
print("begun", flush=True)
sys.stdin.readline()
"""


def test_a_window_that_is_dragged_tells_the_program_its_size(tmp_path: Path) -> None:
    chat = Chat([sys.executable, "-c", PROGRAM], tmp_path)
    try:
        chat.until("begun", 20)
        chat.resize(60, 20)
        chat.until("60 20 columns", 20)
        chat.press("\n")
    finally:
        chat.close()
    assert chat.process.returncode == 0
