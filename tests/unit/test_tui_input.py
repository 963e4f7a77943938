"""The message box: sending, new lines, pasting, recalling."""

from __future__ import annotations

import pytest
from textual import events
from textual.app import App, ComposeResult
from tui_support import AppPilot, until

from edgespec.tui.message_input import MessageInput


class BoxApp(App[None]):
    """A message box and a list of what it sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[str] = []

    def compose(self) -> ComposeResult:
        yield MessageInput()

    def on_mount(self) -> None:
        self.query_one(MessageInput).focus()

    def on_message_input_submitted(self, event: MessageInput.Submitted) -> None:
        self.sent.append(event.text)


def box(pilot: AppPilot) -> MessageInput:
    return pilot.app.query_one(MessageInput)


def sent(pilot: AppPilot) -> list[str]:
    app = pilot.app
    assert isinstance(app, BoxApp)
    return app.sent


async def test_enter_sends_and_empties_the_box() -> None:
    async with BoxApp().run_test() as pilot:
        await pilot.press("h", "i", "enter")
        await until(pilot, lambda: sent(pilot) == ["hi"])
        assert box(pilot).text == ""


@pytest.mark.parametrize("key", ["shift+enter", "ctrl+j", "alt+enter"])
async def test_newline_keys_break_the_line_at_the_cursor(key: str) -> None:
    async with BoxApp().run_test() as pilot:
        await pilot.press("a", "b", "left", key)
        assert box(pilot).text == "a\nb"
        assert sent(pilot) == []
        await pilot.press("enter")
        await until(pilot, lambda: sent(pilot) == ["a\nb"])


@pytest.mark.parametrize("text", ["", "   ", "\n\n"])
async def test_blank_messages_are_not_sent(text: str) -> None:
    async with BoxApp().run_test() as pilot:
        box(pilot).insert(text)
        await pilot.press("enter")
        assert sent(pilot) == []


async def test_empty_lines_around_go_and_indentation_stays() -> None:
    async with BoxApp().run_test() as pilot:
        box(pilot).insert("\n\n    indented\n\n  ")
        await pilot.press("enter")
        await until(pilot, lambda: sent(pilot) == ["    indented"])


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
async def test_a_paste_keeps_its_lines_and_does_not_send(newline: str) -> None:
    async with BoxApp().run_test() as pilot:
        pilot.app.post_message(events.Paste(newline.join(["one", "  two", "", "three"])))
        await until(pilot, lambda: box(pilot).text)
        assert box(pilot).text == "one\n  two\n\nthree"
        assert sent(pilot) == []


async def test_control_codes_in_a_paste_are_shown_and_not_obeyed() -> None:
    async with BoxApp().run_test() as pilot:
        pilot.app.post_message(events.Paste("a\x1b]0;title\x07\tb"))
        await until(pilot, lambda: box(pilot).text)
        assert box(pilot).text == "a\u241b]0;title\u2407\tb"


async def test_up_in_an_empty_box_recalls_older_and_down_newer_messages() -> None:
    async with BoxApp().run_test() as pilot:
        for message in ("one", "two"):
            box(pilot).insert(message)
            await pilot.press("enter")
        seen = []
        for key in ("up", "up", "up", "down", "down"):
            await pilot.press(key)
            seen.append(box(pilot).text)
        assert seen == ["two", "one", "one", "two", ""]


async def test_a_recalled_message_can_be_changed_and_sent_again() -> None:
    async with BoxApp().run_test() as pilot:
        await pilot.press("a", "enter", "up", "b", "enter")
        await until(pilot, lambda: sent(pilot) == ["a", "ab"])


async def test_up_moves_the_cursor_in_text_of_ones_own() -> None:
    async with BoxApp().run_test() as pilot:
        await pilot.press("a", "enter", "b", "ctrl+j", "c", "up")
        assert box(pilot).text == "b\nc"
        assert box(pilot).cursor_location[0] == 0
        await pilot.press("up")
        assert box(pilot).text == "b\nc"


async def test_up_moves_within_a_recalled_message_of_several_lines_first() -> None:
    async with BoxApp().run_test() as pilot:
        await pilot.press("x", "enter", "a", "ctrl+j", "b", "enter", "up")
        assert box(pilot).text == "a\nb"
        await pilot.press("up")
        assert box(pilot).text == "a\nb"
        await pilot.press("up")
        assert box(pilot).text == "x"


async def test_a_message_given_back_stands_before_what_was_typed_since() -> None:
    async with BoxApp().run_test() as pilot:
        box(pilot).give_back("first")
        assert box(pilot).text == "first"
        box(pilot).give_back("before")
        assert box(pilot).text == "before\nfirst"


async def test_the_box_grows_with_its_text_up_to_its_limit() -> None:
    from tui_support import ScriptedCompleter, ready
    from tui_support import box as chat_box

    from edgespec.tui import ChatApp

    async with ChatApp(ScriptedCompleter("one")).run_test(size=(60, 30)) as pilot:
        await ready(pilot)
        assert chat_box(pilot).outer_size.height == 3
        await pilot.press("a", "ctrl+j", "b", "ctrl+j", "c")
        await until(pilot, lambda: chat_box(pilot).outer_size.height == 5)
        chat_box(pilot).insert("\n" * 40)
        await until(pilot, lambda: chat_box(pilot).outer_size.height == 10)


async def test_a_hint_gives_way_to_the_usual_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgespec.tui.message_input.HINT_SECONDS", 0.05)
    async with BoxApp().run_test() as pilot:
        box(pilot).usual_hint = "Enter send"
        await pilot.pause()
        assert box(pilot).border_subtitle == "Enter send"
        box(pilot).show_hint("copied")
        assert box(pilot).border_subtitle == "copied"
        await until(pilot, lambda: box(pilot).border_subtitle == "Enter send")
