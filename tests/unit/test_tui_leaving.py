"""Every way out of the chat: promptly, with the right exit status, and nothing typed lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from textual.app import App
from tui_support import (
    GatedFactory,
    ScriptedCompleter,
    answers,
    ask,
    box,
    lines,
    questions,
    ready,
    screen,
    send,
    status,
    until,
)

from edgespec.errors import ModelFileError, UsageError
from edgespec.runtime.history import open_incognito
from edgespec.tui import ChatApp, ChatOptions, ChatOutcome, Services, run_chat

TRUNCATED = ModelFileError("qwen.gguf is truncated", "run `edgespec pull` again")


def join_threads() -> None:
    """What the app began has ended, or does so now."""
    for thread in threading.enumerate():
        if thread.name in ("loading", "answer"):
            thread.join(5)
            assert not thread.is_alive()


@pytest.mark.parametrize("key", ["ctrl+q", "ctrl+c"])
async def test_quitting_ends_the_thread_and_exits_with_success(key: str) -> None:
    app = ChatApp(ScriptedCompleter("one"))
    async with app.run_test() as pilot:
        await ready(pilot)
        await pilot.press(key)
        await until(pilot, lambda: app.return_value)
    assert app.return_value == ChatOutcome(exit_code=0, message=None)
    join_threads()


async def test_quitting_while_an_answer_runs_cancels_it_first() -> None:
    completer = ScriptedCompleter("one two", gated=True)
    app = ChatApp(completer)
    async with app.run_test() as pilot:
        await ready(pilot)
        await send(pilot, "count")
        completer.allow(1)
        await until(pilot, lambda: answers(pilot) == ["one "])
        started = time.monotonic()
        await pilot.press("ctrl+q")
        await until(pilot, lambda: app.return_value)
        assert time.monotonic() - started < 0.5
    assert app.return_value == ChatOutcome()
    join_threads()
    assert completer.cancelled_at is not None


async def test_quitting_while_loading_leaves_at_once() -> None:
    factory = GatedFactory(ScriptedCompleter("one"))
    app = ChatApp(factory)
    async with app.run_test() as pilot:
        await until(pilot, factory.entered.is_set)
        started = time.monotonic()
        await pilot.press("ctrl+c")
        await until(pilot, lambda: app.return_value)
        assert time.monotonic() - started < 0.5
    factory.opened.set()
    join_threads()


@pytest.mark.parametrize("is_incognito", [False, True])
async def test_a_message_that_waits_is_there_at_the_next_start(
    tmp_path: Path, is_incognito: bool
) -> None:
    factory = GatedFactory(ScriptedCompleter("one"))
    preferences = tmp_path / "chat.json"

    def app() -> ChatApp:
        options = ChatOptions(incognito=is_incognito)
        return ChatApp(factory, options, Services(history=history, preferences=preferences))

    with open_incognito() as history:
        async with app().run_test(size=(80, 24)) as pilot:
            await until(pilot, factory.entered.is_set)
            await send(pilot, "a long question")
            await until(pilot, lambda: questions(pilot) == ["a long question"])
            await pilot.press("ctrl+q")
        factory.opened.set()
        async with app().run_test(size=(80, 24)) as pilot:
            await ready(pilot)
            assert box(pilot).text == ("" if is_incognito else "a long question")
            assert ("this was not sent before you left" in screen(pilot)) is not is_incognito
        async with app().run_test(size=(80, 24)) as pilot:
            await ready(pilot)
            assert box(pilot).text == "", "it comes once"
    kept = preferences.read_text() if preferences.exists() else ""
    assert "long question" not in kept


async def test_the_first_ctrl_c_stops_the_answer_and_the_second_quits() -> None:
    completer = ScriptedCompleter("one two", gated=True)
    app = ChatApp(completer)
    async with app.run_test() as pilot:
        await ready(pilot)
        await send(pilot, "count")
        completer.allow(1)
        await until(pilot, lambda: answers(pilot) == ["one "])
        await pilot.press("ctrl+c")
        await ready(pilot)
        assert app.return_value is None
        await pilot.press("ctrl+c")
        await until(pilot, lambda: app.return_value)
    assert app.return_value == ChatOutcome()


async def test_ctrl_c_asks_once_more_before_it_throws_typed_text_away() -> None:
    app = ChatApp(ScriptedCompleter("one"))
    async with app.run_test() as pilot:
        await ready(pilot)
        await pilot.press("h", "i", "ctrl+c")
        assert "again" in str(box(pilot).border_subtitle)
        assert app.return_value is None and box(pilot).text == "hi"
        await pilot.press("ctrl+c")
        await until(pilot, lambda: app.return_value)


async def test_ctrl_c_copies_a_selection_and_does_not_quit() -> None:
    app = ChatApp(ScriptedCompleter("one"))
    async with app.run_test() as pilot:
        await ready(pilot)
        await pilot.press("h", "i")
        box(pilot).select_all()
        await pilot.press("ctrl+c")
        assert app.clipboard == "hi"
        assert app.return_value is None
        assert "again" not in str(box(pilot).border_subtitle)


async def test_a_load_failure_leaves_at_once_with_its_line_and_exit_code() -> None:
    factory = GatedFactory(error=TRUNCATED)
    factory.opened.set()
    app = ChatApp(factory)
    async with app.run_test() as pilot:
        await until(pilot, lambda: app.return_value)
    assert app.return_value == ChatOutcome(3, "qwen.gguf is truncated; run `edgespec pull` again")
    assert app.return_code == 3


async def test_an_unexpected_load_failure_is_one_line_too() -> None:
    factory = GatedFactory(error=ZeroDivisionError("oh\nno"))
    factory.opened.set()
    app = ChatApp(factory)
    async with app.run_test() as pilot:
        await until(pilot, lambda: app.return_value)
    outcome = app.return_value
    assert outcome is not None and outcome.message is not None
    assert outcome.exit_code == 1
    assert outcome.message.startswith("internal error at tui_support.py:")
    assert outcome.message.endswith("ZeroDivisionError: oh no; please report this")


@pytest.mark.parametrize("sent", [False, True])
async def test_a_load_failure_waits_when_something_was_typed(sent: bool) -> None:
    factory = GatedFactory(error=TRUNCATED)
    app = ChatApp(factory)
    async with app.run_test() as pilot:
        await until(pilot, factory.entered.is_set)
        box(pilot).insert("a long question")
        if sent:
            await pilot.press("enter")
        factory.opened.set()
        await until(pilot, lambda: status(pilot).state == "failed")
        await until(pilot, lambda: lines(pilot, "note"))
        assert lines(pilot, "error") == ["qwen.gguf is truncated; run `edgespec pull` again"]
        assert box(pilot).text == "a long question"
        await pilot.press("enter")
        await pilot.pause()
        assert box(pilot).text == "a long question"
        await pilot.press("ctrl+c")
        await until(pilot, lambda: app.return_value)
    assert app.return_value is not None and app.return_value.exit_code == 3


@pytest.mark.parametrize(("number", "exit_code"), [("SIGINT", 130), ("SIGTERM", 143)])
async def test_a_signal_stops_the_answer_and_leaves_in_order(number: str, exit_code: int) -> None:
    completer = ScriptedCompleter("one two", gated=True)
    app = ChatApp(completer)
    async with app.run_test() as pilot:
        await ready(pilot)
        await send(pilot, "count")
        await until(pilot, lambda: completer.requests)
        os.kill(os.getpid(), getattr(signal, number))
        await until(pilot, lambda: app.return_value)
    join_threads()
    assert completer.cancelled_at is not None
    assert app.return_value == ChatOutcome(exit_code)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


async def test_a_failing_handler_leaves_with_one_line_and_no_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    app = ChatApp(ScriptedCompleter("one"))

    def fail() -> None:
        raise LookupError("a bug\nin a handler")

    with pytest.raises(LookupError):  # the pilot raises it again; a terminal does not
        async with app.run_test() as pilot:
            await ready(pilot)
            app.call_later(fail)
            await until(pilot, lambda: app.return_value)
    outcome = app.return_value
    assert outcome is not None and outcome.message is not None
    assert outcome.exit_code == 1
    assert outcome.message.startswith("internal error at test_tui_leaving.py:")
    assert outcome.message.endswith("LookupError: a bug in a handler; please report this")
    captured = capsys.readouterr()
    assert "Traceback" not in captured.out + captured.err


async def test_a_panic_of_textual_is_one_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    app = ChatApp(ScriptedCompleter("one"))
    async with app.run_test() as pilot:
        await ready(pilot)
        app.panic("three\nlines of\ntraceback")
        await until(pilot, lambda: app.return_value)
    outcome = app.return_value
    assert outcome is not None and outcome.exit_code == 1
    assert outcome.message is not None and "please report" in outcome.message
    captured = capsys.readouterr()
    assert "traceback" not in captured.out + captured.err


def test_a_chat_without_a_terminal_is_refused() -> None:
    with pytest.raises(UsageError, match="needs a terminal"):
        run_chat(ScriptedCompleter("one"))


async def test_the_command_palette_offers_what_the_keys_do() -> None:
    app = ChatApp(ScriptedCompleter("one"))
    async with app.run_test() as pilot:
        await ready(pilot)
        await ask(pilot, "Hi")
        await pilot.press("ctrl+p", *"copy", "enter")
        await until(pilot, lambda: app.clipboard == "one")
        assert isinstance(app, App)
