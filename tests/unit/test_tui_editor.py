"""Writing a message in an editor of one's own."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

from edgespec.errors import UsageError
from edgespec.tui import editor
from edgespec.tui.editor import edited


def writes(data: bytes, status: int = 0) -> object:
    def run(command: Sequence[str]) -> int:
        Path(command[-1]).write_bytes(data)
        return status

    return run


def test_what_the_editor_leaves_is_the_message_and_no_file_stays() -> None:
    seen: list[Path] = []

    def run(command: Sequence[str]) -> int:
        assert list(command[:-1]) == ["my editor", "--wait"]
        file = Path(command[-1])
        seen.append(file)
        assert file.read_text() == "größe\n"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        file.write_text("two\nlines\n")
        return 0

    environ = {"EDITOR": "vi", "VISUAL": "'my editor' --wait"}
    assert edited("größe\n", environ, run) == "two\nlines"
    assert not seen[0].exists()


@pytest.mark.parametrize(
    ("environ", "data", "status", "told"),
    [
        ({}, b"", 0, "no editor is set; set \\$VISUAL or \\$EDITOR"),
        ({"EDITOR": "'vi"}, b"", 0, "cannot be read"),
        ({"EDITOR": "vi"}, b"", 3, "vi failed \\(status 3\\)"),
        ({"EDITOR": "vi"}, b"\xff", 0, "is not UTF-8"),
        ({"EDITOR": "vi"}, b"aaaa", 0, "larger than 4 MiB"),
    ],
)
def test_an_editor_that_fails_is_told(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], data: bytes, status: int, told: str
) -> None:
    monkeypatch.setattr(editor, "MAX_BYTES", 3)
    with pytest.raises(UsageError, match=told):
        edited("", environ, writes(data, status))  # type: ignore[arg-type]


def test_an_editor_that_does_not_exist_is_told() -> None:
    with pytest.raises(UsageError, match="edgespec-no-editor did not run: No such file"):
        edited("", {"EDITOR": "edgespec-no-editor"})


def test_ctrl_c_is_the_editors_and_other_signals_are_handed_on() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = {
        each: signal.signal(each, lambda *_: None) for each in (signal.SIGINT, signal.SIGUSR1)
    }
    wakeup = signal.set_wakeup_fd(writer)

    def run(command: Sequence[str]) -> int:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGUSR1)
        return 0

    try:
        assert edited("kept", {"EDITOR": "vi"}, run) == "kept"
        assert signal.set_wakeup_fd(wakeup) == writer
        assert os.read(reader, 10) == bytes([signal.SIGUSR1])
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)
