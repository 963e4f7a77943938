"""Copying, and a line that tells the truth about it.

An app in a terminal can ask the terminal to copy (OSC 52). Some terminals do, some ask, some ignore
it, and none answers; within tmux it is up to tmux. A program such as wl-copy answers by its status.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from textual.app import App

SECONDS = 2.0
"""How long a clipboard program may take."""

KNOWN_TO_COPY = ("KITTY_WINDOW_ID", "WEZTERM_PANE", "GHOSTTY_RESOURCES_DIR", "ALACRITTY_WINDOW_ID",
                 "WT_SESSION")  # fmt: skip
"""Variables of terminals that obey OSC 52 unless told not to."""

UNSURE = "your terminal may not allow it: select with Shift and the mouse if nothing was copied"


@dataclass(frozen=True, slots=True)
class Way:
    """A program that takes the text on its standard input, () for the terminal alone."""

    command: tuple[str, ...]
    line: str


def ways(
    environ: Mapping[str, str], has: Callable[[str], bool], platform: str = sys.platform
) -> list[Way]:
    """Ways to copy, to be tried in turn until one works; the last one asks the terminal.

    A program of this machine is of no use to someone who came over SSH: their clipboard is
    elsewhere.
    """
    found = []
    if "SSH_CONNECTION" not in environ:
        if platform == "darwin" and has("pbcopy"):
            found.append(Way(("pbcopy",), "copied"))
        if environ.get("WAYLAND_DISPLAY") and has("wl-copy"):
            found.append(Way(("wl-copy",), "copied"))
        if environ.get("DISPLAY") and has("xclip"):
            found.append(Way(("xclip", "-selection", "clipboard"), "copied"))
    if environ.get("TMUX") and has("tmux"):
        line = "copied to tmux's buffer; prefix ] pastes it"
        # -w offers it to the terminal around tmux, too; tmux before 3.2 does not know it.
        found += [Way(("tmux", "load-buffer", *w, "-"), line) for w in (("-w",), ())]
    return [*found, Way((), _terminal_line(environ))]


def _terminal_line(environ: Mapping[str, str]) -> str:
    if environ.get("STY"):
        return "GNU screen does not pass it on: select with Shift and the mouse"
    if environ.get("TMUX") or environ.get("TERM", "").startswith(("tmux", "screen")):
        return "sent to tmux, which copies if its set-clipboard is on"
    if any(name in environ for name in KNOWN_TO_COPY):
        return "copied"
    return UNSURE


def copy(app: App[Any], text: str) -> str:
    """Copy `text`, for Ctrl+V in the app as well; says in one line what came of it."""
    App.copy_to_clipboard(app, text)
    return next(
        way.line
        for way in ways(os.environ, lambda name: shutil.which(name) is not None)
        if not way.command or _ran(way.command, text)
    )


def _ran(command: tuple[str, ...], text: str) -> bool:
    try:
        done = subprocess.run(
            command,
            input=text.encode(errors="replace"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
