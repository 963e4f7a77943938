"""What each command does, by key and by word, over a scripted completer and a real history."""

from __future__ import annotations

import json
from collections.abc import Iterator
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
    status_line,
    until,
)

from edgespec.cache.chats.as_markdown import markdown_of
from edgespec.cache.chats.chat_files import chat_file
from edgespec.chats import ChatSettings, History, path_to
from edgespec.runtime.history import open_incognito
from edgespec.tui import ChatApp, ChatOptions, Services
from edgespec.tui.actions import Actions
from edgespec.tui.commands import COMMANDS
from edgespec.tui.library import LibraryScreen
from edgespec.tui.session import CONTINUED
from edgespec.types import Message

SIZE = (100, 30)


@pytest.fixture
def history() -> Iterator[History]:
    """A history in memory, with nothing in it."""
    with open_incognito() as store:
        yield store


def app_of(completer: ScriptedCompleter, history: History, **services: object) -> ChatApp:
    return ChatApp(completer, ChatOptions(), Services(history=history, **services))  # type: ignore[arg-type]


def kept(history: History) -> list[tuple[str, str]]:
    """The conversation that was spoken in last, as it is shown."""
    chat = history.load(history.recent()[0].id)
    assert chat is not None
    return [(each.content, each.state) for each in path_to(chat.messages, chat.tip)]


def test_every_command_is_done_by_something() -> None:
    for command in COMMANDS:
        assert callable(getattr(Actions, f"do_{command.id}"))


async def test_what_is_said_is_kept_as_it_is_said(history: History) -> None:
    completer = ScriptedCompleter("one two three", gated=True)
    async with app_of(completer, history).run_test(size=SIZE) as pilot:
        await ready(pilot)
        await send(pilot, "count")
        await until(pilot, lambda: len(completer.requests) == 1)
        assert kept(history) == [("count", "done"), ("", "open")]
        completer.allow(3)
        await ready(pilot)
        assert kept(history) == [("count", "done"), ("one two three", "done")]
        assert completer.requests[0].conversation == history.recent()[0].id


async def test_another_answer_stands_beside_the_first(history: History) -> None:
    completer = ScriptedCompleter("first", "second")
    async with app_of(completer, history).run_test(size=SIZE) as pilot:
        await ready(pilot)
        await ask(pilot, "Hi")
        await pilot.press("ctrl+r")
        await until(pilot, lambda: len(completer.requests) == 2)
        await ready(pilot)
        assert answers(pilot) == ["second"]
        assert "2/2" in screen(pilot)
        await pilot.press("alt+left")
        await until(pilot, lambda: answers(pilot) == ["first"])
        assert "1/2" in screen(pilot)
        await pilot.press("alt+left")
        await pilot.press("alt+right")
        await until(pilot, lambda: answers(pilot) == ["second"])


async def test_an_earlier_question_is_edited_into_a_branch(history: History) -> None:
    completer = ScriptedCompleter("1", "2", "I")
    async with app_of(completer, history).run_test(size=SIZE) as pilot:
        await ready(pilot)
        await ask(pilot, "one")
        await ask(pilot, "two")
        await pilot.press("alt+up", "alt+up")
        assert box(pilot).text == "one"
        await pilot.press("ctrl+a", "delete")
        box(pilot).replace_message("uno")
        await pilot.press("enter")
        await until(pilot, lambda: len(completer.requests) == 3)
        await ready(pilot)
        assert questions(pilot) == ["uno"]
        assert completer.requests[2].prompt == (Message("user", "uno"),)
        await pilot.press("alt+left")
        await until(pilot, lambda: questions(pilot) == ["one", "two"])


async def test_editing_is_left_with_escape(history: History) -> None:
    async with app_of(ScriptedCompleter("1"), history).run_test(size=SIZE) as pilot:
        await ready(pilot)
        await ask(pilot, "one")
        await pilot.press("alt+up")
        assert box(pilot).text == "one"
        box(pilot)._show_usual_hint()  # as it is when every other hint has ended
        assert "Esc leaves the old one" in screen(pilot)
        await pilot.press("escape")
        assert box(pilot).text == "" and "Enter send" in screen(pilot)
        await ask(pilot, "two")
        assert questions(pilot) == ["one", "two"]


async def test_a_stopped_answer_goes_on(history: History) -> None:
    completer = ScriptedCompleter("one two three", "four", gated=True)
    async with app_of(completer, history).run_test(size=SIZE) as pilot:
        await ready(pilot)
        await send(pilot, "count")
        completer.allow(2)
        await until(pilot, lambda: answers(pilot) == ["one two "])
        await pilot.press("escape")
        await ready(pilot)
        assert kept(history)[1] == ("one two ", "cut")
        completer.allow(1)
        await pilot.press("f5")
        await until(pilot, lambda: answers(pilot) == ["one two four"])
        await ready(pilot)
    again = completer.requests[1]
    assert again.continue_final_message
    assert again.prompt[-1] == Message("assistant", "one two ")
    assert kept(history)[1] == ("one two four", "done")


async def test_the_same_answer_without_speculation_tells_both_times(history: History) -> None:
    completer = ScriptedCompleter("same words", "same words")
    async with app_of(completer, history).run_test(size=SIZE) as pilot:
        await ready(pilot)
        await ask(pilot, "Hi")
        await ask_command(pilot, completer, "/plain")
        assert [each.speculate for each in completer.requests] == [True, False]
        assert completer.requests[0].sampling == completer.requests[1].sampling
        assert any("the same bytes" in line for line in lines(pilot, "note"))


async def ask_command(pilot: AppPilot, completer: ScriptedCompleter, command: str) -> None:
    """Type a command that has something answered, and wait for it."""
    before = len(completer.requests)
    await send(pilot, command)
    await until(pilot, lambda: len(completer.requests) > before)
    await ready(pilot)


async def test_a_summary_begins_another_conversation(history: History) -> None:
    completer = ScriptedCompleter("Ho.", "They greeted.", "Yes.")
    async with app_of(completer, history).run_test(size=SIZE) as pilot:
        await ready(pilot)
        await ask(pilot, "Hi")
        await ask_command(pilot, completer, "/summary")
        await until(pilot, lambda: answers(pilot) == ["They greeted."])
        await ask(pilot, "Did they?")
    assert not completer.requests[1].record
    assert completer.requests[2].prompt[:2] == (
        Message("user", CONTINUED),
        Message("assistant", "They greeted."),
    )
    assert len(history.recent()) == 2


async def test_settings_hold_from_the_next_answer_on_and_stay_with_the_chat(
    history: History,
) -> None:
    completer = ScriptedCompleter("ok")
    async with app_of(completer, history).run_test(size=SIZE) as pilot:
        await ready(pilot)
        await ask(pilot, "Hi")
        await send(pilot, "/set temperature 0.3")
        await send(pilot, "/system Be brief.")
        await ask(pilot, "And?")
        await send(pilot, "/set temperature hot")
        await until(pilot, lambda: lines(pilot, "error"))
        await send(pilot, "/set")
        await until(pilot, lambda: lines(pilot, "note"))
        assert lines(pilot, "note")[-1].split()[:2] == ["temperature", "0.3"]
    assert completer.requests[1].sampling.temperature == 0.3
    assert completer.requests[1].prompt[0] == Message("system", "Be brief.")
    chat = history.load(history.recent()[0].id)
    assert chat is not None
    assert chat.settings == ChatSettings(system="Be brief.", temperature=0.3)


async def test_nothing_is_kept_incognito_and_that_is_shown(history: History) -> None:
    completer = ScriptedCompleter("ok")
    async with app_of(completer, history).run_test(size=SIZE) as pilot:
        await ready(pilot)
        await send(pilot, "/incognito")
        await until(pilot, lambda: "incognito" in status_line(pilot))
        await ask(pilot, "secret")
        assert history.recent() == []
        assert not completer.requests[0].record
        await send(pilot, "/incognito")
        await until(pilot, lambda: "incognito" not in status_line(pilot))
        assert questions(pilot) == []
        await ask(pilot, "open")
        assert [head.title for head in history.recent()] == ["open"]


async def test_a_conversation_is_found_and_gone_on_with(history: History) -> None:
    completer = ScriptedCompleter("The sea is salty.", "It is blue.", "Because of rivers.")
    async with app_of(completer, history).run_test(size=SIZE) as pilot:
        await ready(pilot)
        await ask(pilot, "Tell me of the sea")
        await pilot.press("ctrl+n")
        await ask(pilot, "Tell me of the sky")
        await pilot.press("ctrl+l")
        await until(pilot, lambda: isinstance(pilot.app.screen, LibraryScreen))
        await until(pilot, lambda: "Tell me of the sea" in screen(pilot))
        await pilot.press(*"salt")
        await until(pilot, lambda: "Tell me of the sky" not in screen(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: answers(pilot) == ["The sea is salty."])
        await ask(pilot, "Why?")
    assert len(completer.requests[2].prompt) == 3
    assert completer.requests[2].conversation == completer.requests[0].conversation


async def test_the_library_renames_pins_copies_and_deletes_with_undo(history: History) -> None:
    for title in ("one", "two"):
        begun = history.begin(None, None, title)
        history.finish(begun.answer, "ok", "done")
    async with app_of(ScriptedCompleter("ok"), history).run_test(size=SIZE) as pilot:
        await ready(pilot)
        await pilot.press("ctrl+l")
        await until(pilot, lambda: "two" in screen(pilot))
        await pilot.press("ctrl+d")
        await until(pilot, lambda: [each.title for each in history.recent()] == ["one"])
        await pilot.press("ctrl+z")
        await until(pilot, lambda: len(history.recent()) == 2)
        await pilot.press("down")
        await pilot.press("ctrl+b")
        await until(pilot, lambda: history.recent()[0].is_pinned)
        await until(pilot, lambda: "pinned" in screen(pilot))
        await pilot.press("ctrl+r")
        await pilot.press(*"!", "enter")
        await until(pilot, lambda: history.recent()[0].title.endswith("!"))
        await pilot.press("ctrl+k")
        await until(pilot, lambda: len(history.recent()) == 3)
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(pilot.app.screen, LibraryScreen))


async def test_forgetting_hides_the_conversation(history: History) -> None:
    async with app_of(ScriptedCompleter("ok"), history).run_test(size=SIZE) as pilot:
        await ready(pilot)
        await ask(pilot, "Hi")
        await send(pilot, "/forget")
        await until(pilot, lambda: history.recent() == [])
        assert questions(pilot) == []


async def test_a_conversation_is_written_to_a_file_once(history: History, tmp_path: Path) -> None:
    app = app_of(
        ScriptedCompleter("Ho."),
        history,
        write_chat=lambda chat, form: chat_file(chat) if form == "json" else markdown_of(chat),
    )
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await ask(pilot, "Hi")
        await send(pilot, f"/export {tmp_path / 'talk.md'}")
        await until(pilot, lambda: lines(pilot, "note"))
        await send(pilot, f"/export json {tmp_path / 'talk.json'}")
        await until(pilot, lambda: len(lines(pilot, "note")) == 2)
        await send(pilot, f"/export {tmp_path / 'talk.md'}")
        await until(pilot, lambda: lines(pilot, "error"))
        assert "is there already" in lines(pilot, "error")[0]
    assert "Ho." in (tmp_path / "talk.md").read_text()
    assert json.loads((tmp_path / "talk.json").read_text())["edgespec"] == "chat"


async def test_tokens_are_tinted_by_source_with_a_legend(history: History) -> None:
    async with app_of(ScriptedCompleter("**Ho**"), history).run_test(size=SIZE) as pilot:
        await ready(pilot)
        await ask(pilot, "Hi")
        assert "**" not in screen(pilot)
        await pilot.press("f3")
        await until(pilot, lambda: "**Ho**" in screen(pilot))
        assert "drafter" in status_line(pilot)
        await pilot.press("f3")
        await until(pilot, lambda: "**" not in screen(pilot))


async def test_the_panel_shows_what_speculation_did(history: History) -> None:
    async with app_of(ScriptedCompleter("one two three"), history).run_test(size=SIZE) as pilot:
        await ready(pilot)
        await ask(pilot, "Hi")
        await pilot.press("f2")
        await until(pilot, lambda: "block efficiency" in screen(pilot))
        await pilot.press("f2")
        await until(pilot, lambda: "block efficiency" not in screen(pilot))


async def test_a_theme_is_remembered(history: History, tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    async with app_of(ScriptedCompleter(), history, preferences=path).run_test(size=SIZE) as pilot:
        await ready(pilot)
        await send(pilot, "/theme nord")
        await until(pilot, lambda: pilot.app.theme == "nord")
        await until(pilot, path.exists)
    async with app_of(ScriptedCompleter(), history, preferences=path).run_test(size=SIZE) as pilot:
        assert pilot.app.theme == "nord"


async def test_keys_are_the_users_own(history: History, tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text('library = "ctrl+g"\ntea = "f9"\n')
    async with app_of(ScriptedCompleter(), history, keys=path).run_test(size=SIZE) as pilot:
        await ready(pilot)
        assert "there is no command tea" in lines(pilot, "note")[0]
        await pilot.press("ctrl+g")
        await until(pilot, lambda: isinstance(pilot.app.screen, LibraryScreen))


async def test_a_chat_is_gone_on_with_from_the_start(history: History) -> None:
    begun = history.begin(None, None, "Hi")
    history.finish(begun.answer, "Ho.", "done")
    completer = ScriptedCompleter("Yes.")
    app = ChatApp(completer, ChatOptions(chat=begun.chat), Services(history=history))
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await until(pilot, lambda: answers(pilot) == ["Ho."])
        await pilot.press("up")
        assert box(pilot).text == "Hi"
        box(pilot).replace_message("")
        await ask(pilot, "And?")
    assert len(completer.requests[0].prompt) == 3


async def test_a_hint_is_not_ended_by_the_one_before(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgespec.tui.message_input.HINT_SECONDS", 0.4)
    async with app_of(ScriptedCompleter("ok"), history).run_test(size=SIZE) as pilot:
        await ready(pilot)
        box(pilot).show_hint("first")
        await pilot.pause(0.3)
        monkeypatch.setattr("edgespec.tui.message_input.HINT_SECONDS", 60.0)
        box(pilot).show_hint("second")
        await pilot.pause(0.3)
        assert box(pilot).border_subtitle == "second"
