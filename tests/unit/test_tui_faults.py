"""What comes at a bad moment: a slow or failing disk, a summary, an edit, a way out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tui_support import (
    AppPilot,
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

from edgespec.chats import History, path_to
from edgespec.errors import StorageError
from edgespec.reports import Report
from edgespec.runtime.history import open_incognito
from edgespec.tui import ChatApp, ChatOptions, ChatOutcome, Services
from edgespec.tui.session import CONTINUED

SIZE = (100, 30)
LOCKED = StorageError("the database is locked", "close what holds it")


class Unsure:
    """A history whose disk is slow (`gate` closed), or that refuses some methods (`refused`)."""

    def __init__(self) -> None:
        self.store = open_incognito()
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.refused: set[str] = set()

    def __getattr__(self, name: str) -> object:
        def call(*arguments: object, **named: object) -> object:
            self.entered.set()
            assert self.gate.wait(10)
            if name in self.refused:
                raise LOCKED
            return getattr(self.store, name)(*arguments, **named)

        return call

    def kept(self) -> list[tuple[str, str]]:
        """The conversation that was spoken in last, as it is shown."""
        chat = self.store.load(self.store.recent()[0].id)
        assert chat is not None
        return [(each.content, each.state) for each in path_to(chat.messages, chat.tip)]


@pytest.fixture
def history() -> Iterator[Unsure]:
    unsure = Unsure()
    yield unsure
    unsure.gate.set()
    unsure.store.close()


def app_of(
    completer: ScriptedCompleter,
    history: Unsure | History | Callable[[Report], History],
    **services: object,
) -> ChatApp:
    return ChatApp(completer, ChatOptions(), Services(history=history, **services))  # type: ignore[arg-type]


# The disk


async def test_keys_are_taken_while_the_disk_waits(history: Unsure) -> None:
    app = app_of(ScriptedCompleter("one"), history)
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        history.gate.clear()
        await send(pilot, "Hi")
        await pilot.press("h", "o")
        await until(pilot, lambda: box(pilot).text == "ho")
        await until(pilot, lambda: "waiting for the disk" in screen(pilot))
        history.gate.set()
        await until(pilot, lambda: answers(pilot) == ["one"])


async def test_the_history_is_opened_behind_the_first_frame(history: Unsure) -> None:
    is_free, opened_in = threading.Event(), list[str]()

    def opened(report: Report) -> History:
        opened_in.append(threading.current_thread().name)
        assert is_free.wait(10)
        report("the database was damaged, a new one was begun")
        return history.store

    async with app_of(ScriptedCompleter("one"), opened).run_test(size=SIZE) as pilot:
        await ready(pilot)
        assert "Enter send" in screen(pilot) and opened_in[0].startswith("history")
        await send(pilot, "Hi")
        is_free.set()
        await until(pilot, lambda: answers(pilot) == ["one"])
        await ready(pilot)
        assert lines(pilot, "note") == ["the database was damaged, a new one was begun"]
    assert len(opened_in) == 1 and history.kept() == [("Hi", "done"), ("one", "done")]


async def test_a_history_that_is_locked_at_first_keeps_all_once_it_is_free(history: Unsure) -> None:
    is_locked = True

    def opened(_report: Report) -> History:
        if is_locked:
            raise LOCKED
        return history.store

    async with app_of(ScriptedCompleter("one", "two"), opened).run_test(size=SIZE) as pilot:
        await ready(pilot)
        await ask(pilot, "first")
        await pilot.press("ctrl+l")
        await until(pilot, lambda: "the database is locked; close what holds it" in screen(pilot))
        is_locked = False
        await pilot.press("escape")
        await ask(pilot, "second")
        first, *notes = lines(pilot, "note")
        assert first == str(LOCKED) and notes[0].startswith(f"not kept from here on: {LOCKED}")
        assert notes[1:] == ["all of this conversation is kept now"]
    assert [text for text, _ in history.kept()] == ["first", "one", "second", "two"]


async def test_escape_while_the_question_is_written_takes_it_back(history: Unsure) -> None:
    app = app_of(ScriptedCompleter("one", gated=True), history)
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        history.gate.clear()
        history.entered.clear()
        await send(pilot, "Hi")
        await until(pilot, history.entered.is_set)
        await pilot.press("escape")
        history.gate.set()
        await until(pilot, lambda: box(pilot).text == "Hi")
        assert questions(pilot) == []
    assert history.store.recent() == []


async def test_one_may_leave_while_the_disk_waits(history: Unsure) -> None:
    app = app_of(ScriptedCompleter("one"), history)
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        history.gate.clear()
        history.entered.clear()
        await send(pilot, "Hi")
        await until(pilot, history.entered.is_set)
        await pilot.press("ctrl+q")
        await until(pilot, lambda: app.return_value)
        history.gate.set()
    assert app.return_value == ChatOutcome()


async def test_what_cannot_be_kept_on_the_way_out_is_told(history: Unsure) -> None:
    completer = ScriptedCompleter("one two", gated=True)
    app = app_of(completer, history)
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await send(pilot, "count")
        completer.allow(1)
        await until(pilot, lambda: answers(pilot) == ["one "])
        history.refused = {"finish"}
        await pilot.press("ctrl+q")
        await until(pilot, lambda: app.return_value)
    assert app.return_value is not None and app.return_value.message is not None
    assert app.return_value.message.startswith("not kept from here on: the database is locked")


async def test_a_conversation_that_is_gone_is_told_and_this_one_goes_on(history: Unsure) -> None:
    completer = ScriptedCompleter("one two", "three", gated=True)
    app = app_of(completer, history)
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await send(pilot, "count")
        completer.allow(1)
        await until(pilot, lambda: answers(pilot) == ["one "])
        app.turns.add(lambda: app.actions.open_chat("nothing"))
        await until(pilot, lambda: lines(pilot, "error"))
        assert lines(pilot, "error") == ["this conversation is gone; choose another one"]
        assert status(pilot).state == "ready" and "cut off" in screen(pilot)
        assert "Esc stop" not in screen(pilot)
        completer.allow(9)
        await ask(pilot, "And?")
        assert answers(pilot) == ["one ", "three"]


async def test_an_answer_that_another_chat_writes_is_not_gone_on_with(history: Unsure) -> None:
    completer = ScriptedCompleter("one two", gated=True)
    app = app_of(completer, history)
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await send(pilot, "count")
        completer.allow(1)
        await until(pilot, lambda: answers(pilot) == ["one "])
        await pilot.press("escape")
        await ready(pilot)
        history.refused = {"reopen"}
        await send(pilot, "/continue")
        await until(pilot, lambda: lines(pilot, "error") == [str(LOCKED)])
        history.refused = set()
        completer.allow(9)
        await ask(pilot, "And?")
    assert history.kept()[-1] == ("one two", "done")


async def test_what_was_never_kept_is_forgotten_without_a_word(history: Unsure) -> None:
    history.refused = {"begin"}
    app = app_of(ScriptedCompleter("one"), history)
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await ask(pilot, "Hi")
        assert "not kept from here on" in lines(pilot, "note")[0]
        await send(pilot, "/forget")
        await until(pilot, lambda: questions(pilot) == [])
        assert lines(pilot, "error") == []


@pytest.mark.parametrize("command", ["/export ~no-such-user/x.md", "/import ~no-such-user/x.json"])
async def test_a_home_that_nobody_has_is_one_line(history: Unsure, command: str) -> None:
    def read(_path: Path) -> int:
        raise AssertionError

    app = app_of(ScriptedCompleter("one"), history, write_chat=lambda *_: "text", read_chats=read)
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await ask(pilot, "Hi")
        await send(pilot, command)
        await until(pilot, lambda: lines(pilot, "error"))
        assert "nobody has this home" in lines(pilot, "error")[0]


# A summary, an edit


async def summing_up(pilot: AppPilot, completer: ScriptedCompleter) -> None:
    """A turn was said, and a summary of it is under way."""
    await ready(pilot)
    completer.allow(1)
    await ask(pilot, "Hi")
    await send(pilot, "/summary")
    await until(pilot, lambda: len(completer.requests) == 2)


async def test_a_message_waits_for_the_summary_and_is_asked_after_it(history: Unsure) -> None:
    completer = ScriptedCompleter("Ho", "They greeted.", "Yes", gated=True)
    async with app_of(completer, history).run_test(size=SIZE) as pilot:
        await summing_up(pilot, completer)
        await send(pilot, "Did they?")
        await until(pilot, lambda: questions(pilot)[-1] == "Did they?")
        assert len(completer.requests) == 2
        completer.allow(9)
        await until(pilot, lambda: answers(pilot) == ["They greeted.", "Yes"])
        assert questions(pilot) == [CONTINUED, "Did they?"]


async def test_a_summary_of_a_conversation_that_was_left_comes_to_nothing(
    history: Unsure,
) -> None:
    completer = ScriptedCompleter("Ho", "They greeted.", "Yes", gated=True)
    async with app_of(completer, history).run_test(size=SIZE) as pilot:
        await summing_up(pilot, completer)
        await pilot.press("ctrl+n")
        await until(pilot, lambda: completer.cancelled_at)
        completer.allow(9)
        await ask(pilot, "New")
        assert (questions(pilot), answers(pilot)) == (["New"], ["Yes"])


async def test_an_edited_question_comes_back_while_an_answer_runs(history: Unsure) -> None:
    completer = ScriptedCompleter("Ho", "Ha", gated=True)
    async with app_of(completer, history).run_test(size=SIZE) as pilot:
        await ready(pilot)
        await send(pilot, "Hi")
        await until(pilot, lambda: completer.requests)
        await pilot.press("alt+up", "!", "enter")
        await until(pilot, lambda: box(pilot).text == "Hi!")
        completer.allow(1)
        await ready(pilot)
        await pilot.press("enter")
        completer.allow(1)
        await until(pilot, lambda: (questions(pilot), answers(pilot)) == (["Hi!"], ["Ha"]))
