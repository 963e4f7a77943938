"""The chat in a real terminal (a pseudo-terminal), as its own process."""

from __future__ import annotations

import os
import re
import signal
import time

import pytest
from terminal_support import assert_restored, chat_terminal


def test_a_chat_from_start_to_quit() -> None:
    with chat_terminal() as shown:
        shown.until_shown("Enter send")
        shown.until_shown("ready")
        shown.press("Hi\r")
        shown.until_shown("Hello there.")
        shown.press("\x11")
        assert shown.wait() == 0
        assert "outcome 0 None" in shown.shown
        assert_restored(shown)


@pytest.mark.parametrize("keys", ["\n", "\x1b[13;2u", "\x1b[200~\r\x1b[201~"])
def test_newlines_as_terminals_send_them(keys: str) -> None:
    """Ctrl+J, Shift+Enter in the Kitty protocol, and a line end in a bracketed paste."""
    with chat_terminal() as shown:
        shown.until_shown("ready")
        shown.press(f"first{keys}second\r")
        shown.until_shown("Hello there.")
        assert "▌ first" in shown.shown and "▌ second" in shown.shown
        shown.press("\x11")
        assert shown.wait() == 0


def test_the_app_shows_while_the_model_loads() -> None:
    with chat_terminal("time.sleep(30)") as shown:
        shown.until_shown("opening the model")
        assert "Enter send" in shown.shown


def test_ctrl_c_while_loading_ends_the_process() -> None:
    with chat_terminal("time.sleep(30)") as shown:
        shown.until_shown("opening the model")
        started = time.monotonic()
        shown.press("\x03")
        assert shown.wait() == 0
        assert time.monotonic() - started < 3
        assert "outcome 0 None" in shown.shown
        assert_restored(shown)


def test_a_load_failure_is_one_line_after_the_app_is_gone() -> None:
    with chat_terminal("raise ModelFileError('m.gguf is truncated', 'pull it again')") as shown:
        assert shown.wait() == 3
        after = shown.written.rsplit("\x1b[?1049l", 1)[1]
        assert "outcome 3 m.gguf is truncated; pull it again" in after
        assert "Traceback" not in shown.shown
        assert_restored(shown)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_restores_the_terminal(number: signal.Signals, status: int) -> None:
    with chat_terminal() as shown:
        shown.until_shown("ready")
        shown.process.send_signal(number)
        assert shown.wait() == status
        assert_restored(shown)


def test_bytes_that_are_no_utf8_are_dropped_and_the_chat_goes_on() -> None:
    with chat_terminal() as shown:
        shown.until_shown("ready")
        os.write(shown._leader, b"\xff\xfe")
        time.sleep(0.3)
        shown.press("Hi\r")
        shown.until_shown("Hello there.")
        shown.press("\x11")
        assert shown.wait() == 0
        assert "Traceback" not in shown.shown
        assert_restored(shown)


def test_no_color_is_respected() -> None:
    with chat_terminal(NO_COLOR="1") as shown:
        shown.until_shown("ready")
        shown.press("Hi\r")
        shown.until_shown("there")
        shown.press("\x11")
        assert shown.wait() == 0
        colours = re.findall(r"\x1b\[[0-9;]*?[34]8;2;(\d+);(\d+);(\d+)", shown.written)
        assert all(red == green == blue for red, green, blue in colours)


def test_an_inline_chat_leaves_the_last_answer_below_the_prompt() -> None:
    with chat_terminal("pass", "--inline") as shown:
        shown.until_shown("ready")
        shown.press("Hi\r")
        shown.until_shown("Hello there.")
        shown.process.send_signal(signal.SIGTSTP)
        _, state = os.waitpid(shown.process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(state) and shown.attributes == shown.attributes_before
        shown.read()
        shown.written = ""
        shown.process.send_signal(signal.SIGCONT)
        shown.until_shown("Hello there.")
        shown.press("\x11")
        assert shown.wait() == 0
        shown.until_shown("> Hi\r\n\r\nHello **there**.")
        assert "\x1b[?1049h" not in shown.written and "\x1b[?25h" in shown.written
        assert shown.attributes == shown.attributes_before


def test_a_terminal_that_is_too_small_says_so_until_it_grows() -> None:
    with chat_terminal() as shown:
        shown.until_shown("ready")
        shown.press("typed")
        shown.until_shown("typed")
        shown.resize(5, 20)
        shown.until_shown("small: 30 x 9")
        shown.written = ""
        shown.resize(30, 100)
        shown.until_shown("typed")
        shown.resize(5, 20)
        shown.until_shown("small: 30 x 9")
        shown.press("\x11")
        assert shown.wait() == 0


@pytest.mark.parametrize("way", [(), ("--inline",)])
def test_a_chat_whose_terminal_is_gone_ends(way: tuple[str, ...]) -> None:
    with chat_terminal("pass", *way) as shown:
        shown.until_shown("ready")
        shown.hang_up()
        assert shown.process.wait(10)
