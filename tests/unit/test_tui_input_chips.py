"""The message box: chips, completion of commands and files, and what else Enter may mean."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from textual import events
from textual.app import App, ComposeResult
from textual.containers import Vertical
from tui_support import AppPilot, screen, until

from edgespec.errors import HostDied
from edgespec.tui.chips import shown
from edgespec.tui.completing_area import CountTokens
from edgespec.tui.completion import Completions
from edgespec.tui.message_input import MessageInput


class BoxApp(App[None]):
    """A message box at the foot of a screen, what it sent, and what it was told to do."""

    CSS = "Vertical { height: 1fr; } #input { height: auto; max-height: 10; }"

    def __init__(self, *history: str, root: Path | None = None,
                 count_tokens: CountTokens | None = None) -> None:  # fmt: skip
        super().__init__()
        self.sent: list[tuple[str, str]] = []
        self.given: list[tuple[str, str]] = []
        self.made = MessageInput(history=history, root=root, count_tokens=count_tokens)

    def compose(self) -> ComposeResult:
        yield Vertical()
        yield self.made

    def on_mount(self) -> None:
        self.made.focus()

    def on_message_input_submitted(self, event: MessageInput.Submitted) -> None:
        self.sent.append((event.text, event.shown))

    def on_message_input_command_given(self, event: MessageInput.CommandGiven) -> None:
        self.given.append((event.command, event.argument))

    def action_command(self, command: str) -> None:
        self.given.append((command, ""))

    def action_scroll_transcript(self, direction: int) -> None:
        self.given.append(("scroll", str(direction)))


def offered(pilot: AppPilot) -> list[str]:
    """Values of the rows on offer."""
    completions = pilot.app.query_one(Completions)
    return [choice.value for choice in completions._choices] if completions.is_open else []


async def paste(pilot: AppPilot, text: str) -> None:
    pilot.app.post_message(events.Paste(text))
    await pilot.pause()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "main.py").write_text("print(1)\n")
    (tmp_path / "notes.md").write_text("# Notes")
    (tmp_path / "data.bin").write_bytes(b"\x00\x01")
    return tmp_path


# Chips


async def test_a_long_paste_is_a_chip_that_is_expanded_when_it_is_sent() -> None:
    app = BoxApp()
    text = "\n".join(f"line {number}" for number in range(2000))
    async with app.run_test() as pilot:
        await pilot.press(*"see:")
        await paste(pilot, text)
        assert shown(app.made.text) == "see:[pasted 2,000 lines]"
        await pilot.press("enter")
        await until(pilot, lambda: app.sent)
    assert app.sent == [(f"see:{text}", "see:[pasted 2,000 lines]")]


async def test_the_cursor_jumps_over_a_chip_and_it_goes_as_one() -> None:
    app = BoxApp()
    async with app.run_test() as pilot:
        await pilot.press("a")
        await paste(pilot, "x" * 3000)
        await pilot.press("b", "left", "left")
        assert app.made.cursor_location == (0, 1)
        await pilot.press("right")
        assert app.made.text[app.made.cursor_location[1] :] == "b"
        await pilot.press("ctrl+w")
        assert app.made.text == "ab"
        await pilot.press("ctrl+z")
        assert app.made.chips.expand(app.made.text) == "a" + "x" * 3000 + "b"


async def test_a_selection_takes_whole_chips_and_copies_what_they_stand_for() -> None:
    app = BoxApp()
    async with app.run_test() as pilot:
        await paste(pilot, "x" * 3000)
        await pilot.press("b", "shift+left", "shift+left", "ctrl+c")
        assert app.clipboard == "x" * 3000 + "b"
        await pilot.press("ctrl+x")
        assert app.made.text == ""
        await pilot.press("ctrl+v", "enter")
        await until(pilot, lambda: app.sent)
    assert app.sent[0][0] == "x" * 3000 + "b"


async def test_a_click_into_a_chip_does_not_break_it() -> None:
    app = BoxApp()
    async with app.run_test() as pilot:
        await paste(pilot, "x" * 3000)
        await pilot.click(app.made, offset=(8, 1))
        assert app.made.cursor_location in ((0, 0), (0, len(app.made.text)))


async def test_too_long_a_paste_is_refused_with_a_way_on() -> None:
    app = BoxApp()
    async with app.run_test() as pilot:
        await paste(pilot, "x" * ((4 << 20) + 1))
        assert app.made.text == ""
        assert "@path" in str(app.made.border_subtitle)


# What was sent


async def test_undo_does_not_bring_a_sent_message_back() -> None:
    app = BoxApp()
    async with app.run_test() as pilot:
        await pilot.press("h", "i", "enter", "ctrl+z")
        assert app.made.text == ""
        await pilot.press("a", "ctrl+z", "ctrl+shift+z")
        assert app.made.text == "a"


async def test_messages_of_earlier_chats_are_recalled_and_huge_ones_folded() -> None:
    app = BoxApp("one", "y" * 30_000, "three")
    async with app.run_test() as pilot:
        seen = []
        for _ in range(3):
            await pilot.press("up")
            seen.append(shown(app.made.text))
        assert seen == ["three", "[pasted 1 line]", "one"]
        await pilot.press("down", "enter")
        await until(pilot, lambda: app.sent)
    assert app.sent[0][0] == "y" * 30_000


async def test_a_recalled_command_does_not_hold_the_keys_of_the_history() -> None:
    app = BoxApp("one", "/new")
    async with app.run_test() as pilot:
        await pilot.press("up")
        assert app.made.text == "/new" and offered(pilot) == []
        await pilot.press("up")
        assert app.made.text == "one"
        await pilot.press("backspace", "backspace", "backspace", "/")
        assert offered(pilot)


async def test_a_message_with_chips_given_back_has_them_again(folder: Path) -> None:
    app = BoxApp(root=folder)
    async with app.run_test() as pilot:
        await pilot.press(*"see ")
        app.made.attach("notes.md")
        draft = app.made.text
        await pilot.press("enter")
        await until(pilot, lambda: app.sent)
        app.made.give_back(app.sent[0][0])
        assert app.made.text == draft
        await pilot.press("up", "up")
        assert app.made.text == draft


# Commands


async def test_a_command_goes_to_the_app_and_a_slip_stays_in_the_box() -> None:
    app = BoxApp()
    async with app.run_test() as pilot:
        app.made.insert("/set temperature 0.3")
        await pilot.press("enter")
        app.made.insert("/zzz")
        await pilot.press("enter")
        await until(pilot, lambda: app.given)
        assert app.given == [("set", "temperature 0.3")]
        assert app.made.text == "/zzz"
        assert "there is no /zzz" in str(app.made.border_subtitle)
    assert app.sent == []


@pytest.mark.parametrize("text", ["/usr/bin is full", "see /new", "/etc holds settings"])
async def test_a_message_with_a_slash_is_a_message(text: str) -> None:
    app = BoxApp()
    async with app.run_test() as pilot:
        app.made.insert(text)
        await pilot.press("enter")
        await until(pilot, lambda: app.sent)
    assert app.sent == [(text, text)]


async def test_two_slashes_send_one() -> None:
    app = BoxApp()
    async with app.run_test() as pilot:
        await pilot.press(*"//new", "enter")
        await until(pilot, lambda: app.sent)
    assert app.sent == [("/new", "/new")] and app.given == []


async def test_a_slash_offers_commands_and_enter_does_the_highlighted_one() -> None:
    app = BoxApp()
    async with app.run_test(size=(100, 24)) as pilot:
        await pilot.press("/")
        assert len(offered(pilot)) > 20
        await pilot.press("n", "e")
        assert offered(pilot)[0] == "new"
        assert "begin a new conversation" in screen(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: app.given)
        assert app.given == [("new", "")]
        assert offered(pilot) == [] and app.made.text == ""


async def test_a_command_that_takes_an_argument_waits_for_it() -> None:
    app = BoxApp()
    async with app.run_test() as pilot:
        await pilot.press(*"/sys", "enter")
        assert app.made.text == "/system "
        await pilot.press(*"x", "enter")
        await until(pilot, lambda: app.given)
        app.made.begin_command("import")
        assert app.made.text == "/import "
    assert app.given == [("system", "x")]


async def test_names_of_settings_are_completed() -> None:
    app = BoxApp()
    async with app.run_test(size=(100, 24)) as pilot:
        await pilot.press(*"/set ")
        assert offered(pilot)[0] == "temperature" and "max_tokens" in offered(pilot)
        assert "the same seed gives the same answer" in screen(pilot)
        await pilot.press(*"to", "down", "up", "enter")
        chosen = app.made.text
        assert chosen in ("/set top_p ", "/set top_k ") and offered(pilot) == []
        await pilot.press(*"1", "enter", *"/set ", "enter", *"/set seed", "enter")
        await until(pilot, lambda: len(app.given) == 3)
    assert app.given == [("set", f"{chosen[5:]}1"), ("set", ""), ("set", "seed")]


async def test_keys_and_the_mouse_choose_in_the_list() -> None:
    app = BoxApp()
    async with app.run_test(size=(100, 24)) as pilot:
        await pilot.press("/", "down", "down", "up", "tab")
        assert app.made.text == "/library "
        await pilot.press(*["backspace"] * 9, "/", "t", "h", "escape")
        assert offered(pilot) == [] and app.given == []
        await pilot.press("e")
        assert offered(pilot) == []
        await pilot.press(*["backspace"] * 4, "/", "q", "u")
        await pilot.pause()
        await pilot.click(Completions, offset=(3, 0))
        await until(pilot, lambda: app.made.text == "/quit")
        assert app.given == []


@pytest.mark.parametrize(
    ("key", "given"),
    [
        ("ctrl+n", ("new", "")),
        ("ctrl+y", ("copy", "")),
        ("ctrl+t", ("sources", "")),
        ("ctrl+o", ("attach", "")),
        ("ctrl+s", ("export", "")),
        ("ctrl+l", ("library", "")),
        ("alt+left", ("previous", "")),
        ("alt+up", ("edit", "")),
        ("f2", ("stats", "")),
        ("f4", ("editor", "")),
        ("f5", ("continue", "")),
        ("escape", ("stop", "")),
        ("ctrl+end", ("end", "")),
        ("end", ("end", "")),
        ("pageup", ("scroll", "-1")),
        ("pagedown", ("scroll", "1")),
    ],
)
async def test_keys_of_the_app_work_in_the_box(key: str, given: tuple[str, str]) -> None:
    app = BoxApp()
    async with app.run_test() as pilot:
        await pilot.press(key)
        await until(pilot, lambda: app.given == [given])


async def test_end_and_ctrl_x_keep_their_meaning_in_text() -> None:
    app = BoxApp()
    async with app.run_test() as pilot:
        await pilot.press("a", "b", "home", "end")
        assert app.made.cursor_location == (0, 2)
        await pilot.press("home", "ctrl+x", "x", "ctrl+e")
        assert app.made.text == "xab" and app.made.cursor_location == (0, 3)
        await pilot.press("ctrl+x", "ctrl+e")
        assert app.made.text == "xab"
        assert "needs a terminal" in str(app.made.border_subtitle)
    assert app.given == []


# Files


async def test_an_at_sign_offers_files_and_attaches_the_chosen_one(folder: Path) -> None:
    app = BoxApp(root=folder)
    async with app.run_test(size=(100, 24)) as pilot:
        await pilot.press(*"see @")
        await until(pilot, lambda: offered(pilot) == ["data.bin", "notes.md", "src/main.py"])
        await pilot.press("m", "a")
        assert offered(pilot) == ["src/main.py"]
        await pilot.press("enter", *" please", "enter")
        await until(pilot, lambda: app.sent)
    text, seen = app.sent[0]
    assert text == "see src/main.py please\n\nsrc/main.py\n```py\nprint(1)\n```"
    assert seen == "see [@main.py 1 KB] please"


async def test_folders_are_gone_into(folder: Path) -> None:
    app = BoxApp(root=folder / "src")
    async with app.run_test(size=(100, 24)) as pilot:
        await pilot.press(*"@../")
        await until(pilot, lambda: "../src/" in offered(pilot))
        await pilot.press("s", "r", "c", "tab")
        assert app.made.text == "@../src/"
        await until(pilot, lambda: offered(pilot) == ["../src/main.py"])
        await pilot.press("tab")
        assert shown(app.made.text) == "[@main.py 1 KB]"


async def test_what_is_no_file_stays_text(folder: Path) -> None:
    app = BoxApp(root=folder)
    async with app.run_test() as pilot:
        await pilot.press(*"@bob hello", "enter")
        await until(pilot, lambda: app.sent)
    assert app.sent == [("@bob hello", "@bob hello")]


async def test_a_file_that_cannot_be_attached_is_refused_with_its_reason(folder: Path) -> None:
    app = BoxApp(root=folder)
    async with app.run_test(size=(100, 24)) as pilot:
        await pilot.press(*"@data")
        await until(pilot, lambda: offered(pilot) == ["data.bin"])
        await pilot.press("tab")
        assert "data.bin is not UTF-8 text" in str(app.made.border_subtitle)
        await pilot.press("x")
        assert app.made.text == "@datax"


async def test_attaching_without_a_path_offers_files(folder: Path) -> None:
    app = BoxApp(root=folder)
    async with app.run_test(size=(100, 24)) as pilot:
        await pilot.press("a")
        app.made.attach()
        await until(pilot, lambda: offered(pilot))
        assert app.made.text == "a @"


async def test_the_size_is_told_in_tokens_once_they_are_counted(folder: Path) -> None:
    counting = threading.Event()

    def count(text: str) -> int:
        assert text == "# Notes" and counting.wait(5)
        return 1234

    app = BoxApp(root=folder, count_tokens=count)
    async with app.run_test() as pilot:
        app.made.attach("notes.md")
        await pilot.press("x")
        assert shown(app.made.text) == "[@notes.md 1 KB]x"
        counting.set()
        await until(pilot, lambda: shown(app.made.text) == "[@notes.md 1,234 tokens]x")
        await pilot.press("y", "enter")
        await until(pilot, lambda: app.sent)
    assert app.sent[0][0].startswith("notes.mdxy\n\nnotes.md\n")


@pytest.mark.parametrize("dies", [True, False])
async def test_the_size_stays_in_bytes_where_nobody_counts(folder: Path, dies: bool) -> None:
    asked = threading.Event()

    def count(text: str) -> int | None:
        asked.set()
        if dies:
            raise HostDied("gone")
        return None

    app = BoxApp(root=folder, count_tokens=count)
    async with app.run_test() as pilot:
        app.made.attach("notes.md")
        await until(pilot, asked.is_set)
        await pilot.pause()
        assert shown(app.made.text) == "[@notes.md 1 KB]"
