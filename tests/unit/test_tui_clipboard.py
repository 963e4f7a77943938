"""Which way text is copied, and what is said about it."""

from __future__ import annotations

import pytest
from textual.app import App

from edgespec.tui import clipboard
from edgespec.tui.clipboard import UNSURE, Way, ways

TMUX_LINE = "copied to tmux's buffer; prefix ] pastes it"
TO_TMUX = "sent to tmux, which copies if its set-clipboard is on"


@pytest.mark.parametrize(
    ("environ", "tools", "platform", "programs", "line"),
    [
        ({"WAYLAND_DISPLAY": "w", "DISPLAY": ":0"}, "wl-copy xclip", "linux", "wl-copy xclip",
         "copied"),
        ({"DISPLAY": ":0"}, "wl-copy xclip", "linux", "xclip", "copied"),
        ({}, "wl-copy xclip", "linux", "", UNSURE),
        ({}, "pbcopy", "darwin", "pbcopy", "copied"),
        ({"SSH_CONNECTION": "x"}, "pbcopy", "darwin", "", UNSURE),
        ({"SSH_CONNECTION": "x", "DISPLAY": ":10"}, "xclip", "linux", "", UNSURE),
        ({"TMUX": "t"}, "tmux", "linux", "tmux tmux", TMUX_LINE),
        ({"TMUX": "t", "DISPLAY": ":0"}, "tmux xclip", "linux", "xclip tmux tmux", "copied"),
        ({"TMUX": "t"}, "", "linux", "", TO_TMUX),
        ({"SSH_CONNECTION": "x", "TERM": "tmux-256color"}, "", "linux", "", TO_TMUX),
        ({"STY": "s", "TERM": "screen"}, "", "linux", "",
         "GNU screen does not pass it on: select with Shift and the mouse"),
        ({"KITTY_WINDOW_ID": "1"}, "", "linux", "", "copied"),
    ],
)  # fmt: skip
def test_ways_by_what_there_is(
    environ: dict[str, str], tools: str, platform: str, programs: str, line: str
) -> None:
    found = ways(environ, tools.split().__contains__, platform)
    assert [way.command[0] for way in found if way.command] == programs.split()
    assert found[0].line == line
    assert found[-1].command == ()


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (("true",), "copied"),
        (("false",), "asked the terminal"),
        (("edgespec-no-such-program",), "asked the terminal"),
        (("sleep", "60"), "asked the terminal"),
    ],
)
def test_a_program_that_fails_or_hangs_gives_way(
    monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], line: str
) -> None:
    monkeypatch.setattr(clipboard, "SECONDS", 0.05 if "sleep" in command else 5.0)
    monkeypatch.setattr(
        clipboard, "ways", lambda *_: [Way(command, "copied"), Way((), "asked the terminal")]
    )
    app: App[None] = App()
    assert clipboard.copy(app, "text") == line
    assert app.clipboard == "text"
