"""Copying within a real tmux."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tui_support
from tmux_support import NEEDS_TMUX, Tmux, tmux_window

pytestmark = NEEDS_TMUX

PROGRAM = """
from edgespec.tui import run_chat
from tui_support import ScriptedCompleter
run_chat(ScriptedCompleter("Hello *there*."))
"""


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    program = tmp_path / "chat.py"
    program.write_text(PROGRAM)
    paths = {"PYTHONPATH": str(Path(tui_support.__file__).parent)}
    with tmux_window(tmp_path, [sys.executable, str(program)], (100, 30), **paths) as opened:
        yield opened


def test_an_answer_is_copied_to_the_buffer_of_tmux(tmux: Tmux) -> None:
    tmux.until_shown("ready")
    tmux.press("Hi", "Enter")
    tmux.until_shown("Hello there.")
    tmux.until_shown("ready")
    tmux.press("C-y")
    tmux.until_shown("copied to tmux's buffer; prefix ] pastes it")
    assert tmux.run("show-buffer") == "Hello *there*."
