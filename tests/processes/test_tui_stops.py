"""The chat stopped and continued by a shell, and beside an editor, in a pseudo-terminal."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

import pytest
from terminal_support import Terminal, assert_restored, chat_terminal


def stop(shown: Terminal, number: signal.Signals) -> None:
    """Stop the chat, as a shell does at Ctrl+Z, and read what it wrote before."""
    shown.process.send_signal(number)
    _, status = os.waitpid(shown.process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    shown.read()


@pytest.mark.parametrize("number", [signal.SIGTSTP, signal.SIGSTOP])
def test_a_chat_that_goes_on_draws_itself_again_and_reads_on(number: signal.Signals) -> None:
    with chat_terminal() as shown:
        shown.until_shown("ready")
        shown.press("typed before")
        shown.until_shown("typed before")
        for _ in range(2):
            stop(shown, number)
            if number is signal.SIGTSTP:
                assert_restored(shown)
            shown.written = ""
            shown.process.send_signal(signal.SIGCONT)
            shown.until_shown("typed before")
            assert "\x1b[?1049h" in shown.written and "ready" in shown.shown
        shown.press("\r")
        shown.until_shown("Hello there.")
        shown.press("\x11")
        assert shown.wait() == 0
        assert_restored(shown)


def test_a_message_written_in_an_editor(tmp_path: Path) -> None:
    script = tmp_path / "editor.sh"
    script.write_text('#!/bin/sh\ncat "$1" > "$0.seen"\nstty -a > "$0.stty"\n'
                      'kill -INT $PPID\nprintf "from the editor\\n" >> "$1"\n')  # fmt: skip
    script.chmod(0o700)
    with chat_terminal(EDITOR=str(script), VISUAL="") as shown:
        shown.until_shown("ready")
        shown.press("begun ")
        shown.until_shown("begun")
        shown.written = ""
        shown.press("\x18\x05")
        shown.until_shown("from the editor")
        assert Path(f"{script}.seen").read_text() == "begun "
        assert " icanon" in Path(f"{script}.stty").read_text()
        shown.press("\r")
        shown.until_shown("Hello there.")
        shown.press("\x11")
        assert shown.wait() == 0
        assert_restored(shown)


def test_an_editor_that_fails_leaves_the_message() -> None:
    with chat_terminal(VISUAL="false") as shown:
        shown.until_shown("ready")
        shown.press("kept")
        shown.until_shown("kept")
        shown.written = ""
        shown.press("\x1bOS")
        shown.until_shown("false failed (status 1)")
        assert "kept" in shown.shown
        shown.press("\x11")
        assert shown.wait() == 0


def test_ten_megabytes_pasted_are_refused_and_the_chat_goes_on() -> None:
    with chat_terminal() as shown:
        shown.until_shown("ready")
        line = b"a line of a file that someone pasted by mistake\r"
        data = memoryview(b"\x1b[200~" + line * (10_000_000 // len(line)) + b"\x1b[201~")
        os.set_blocking(shown._leader, False)
        while data:
            readable, writable, _ = select.select([shown._leader], [shown._leader], [], 30)
            assert readable or writable, f"the chat reads no more, with {len(data)} bytes left"
            if writable:
                data = data[os.write(shown._leader, data[:65536]) :]
            else:
                shown.read()
        os.set_blocking(shown._leader, True)
        shown.until_shown("more than 4 MiB is not pasted", 60)
        shown.press("Hi\r")
        shown.until_shown("Hello there.")
        shown.press("\x11")
        assert shown.wait() == 0


def test_a_long_paste_is_one_chip() -> None:
    with chat_terminal() as shown:
        shown.until_shown("ready")
        shown.press("\x1b[200~" + "line\r" * 2000 + "\x1b[201~")
        shown.until_shown("[pasted\u20072,000\u2007lines]")
        shown.press("\x7fnothing left\r")
        shown.until_shown("Hello there.")
        shown.press("\x11")
        assert shown.wait() == 0
