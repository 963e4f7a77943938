"""A program in a window of a real tmux: keys go in, what its pane shows comes out."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

NEEDS_TMUX = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")

_ENDED = "ended with status"
_KEPT_OUT = ("TMUX", "WAYLAND_DISPLAY", "DISPLAY")


class Tmux:
    """A tmux server of the test's own with one window, which outlives its program."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self._folder = folder
        self._command = ["tmux", "-S", str(folder / "tmux"), "-f", "/dev/null"]
        kept = {name: value for name, value in os.environ.items() if name not in _KEPT_OUT}
        self._env = {**kept, **env}

    def run(self, *arguments: str) -> str:
        """What a command of tmux prints."""
        done = subprocess.run(
            [*self._command, *arguments],
            capture_output=True, text=True, check=True, timeout=20, env=self._env,
        )  # fmt: skip
        return done.stdout

    def open(self, program: Sequence[str], size: tuple[int, int]) -> None:
        """Run a program in a window of that size."""
        shown = ("-x", str(size[0]), "-y", str(size[1]), "-c", str(self._folder))
        self.run("new-session", "-d", *shown, _outlived(program))

    def open_again(self, program: Sequence[str]) -> None:
        """Run a program in the window whose program has ended."""
        self.run("respawn-pane", "-k", "-c", str(self._folder), _outlived(program))

    def press(self, *keys: str) -> None:
        """Press keys by tmux's names, or type text that is none."""
        self.run("send-keys", *keys)

    def type(self, text: str) -> None:
        """Type text."""
        self.run("send-keys", "-l", text)

    @property
    def pane(self) -> str:
        """What is shown now."""
        return self.run("capture-pane", "-p")

    def until(self, condition: Callable[[str], object], seconds: float = 180) -> str:
        """What is shown once it meets `condition` and stays the same for a moment."""
        deadline, before = time.monotonic() + seconds, ""
        while not condition(pane := self.pane) or pane != before:
            assert time.monotonic() < deadline, f"still waiting after {seconds} s\n{pane}"
            before = pane
            time.sleep(0.1)
        return pane

    def until_shown(self, *texts: str) -> str:
        """What is shown once all of these texts are."""
        return self.until(lambda pane: all(text in pane for text in texts))

    def until_ended(self) -> int:
        """The exit status of the program, once it has ended."""
        found = re.search(rf"{_ENDED} (\d+)", self.until_shown(_ENDED))
        assert found is not None
        return int(found[1])


def _outlived(program: Sequence[str]) -> str:
    """A command line that shows how the program ended, and stays."""
    return f"{shlex.join(program)}; echo {_ENDED} $?; exec cat"


@contextlib.contextmanager
def tmux_window(
    folder: Path, program: Sequence[str], size: tuple[int, int], **env: str
) -> Iterator[Tmux]:
    """A program in a window of `size`, started in `folder`."""
    opened = Tmux(folder, env)
    opened.open(program, size)
    try:
        yield opened
    finally:
        opened.run("kill-server")
