"""The table of commands, what is typed behind a slash, and a user's own keys."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.app import App

from edgespec.chats import ChatSettings
from edgespec.errors import UsageError
from edgespec.tui import commands
from edgespec.tui.commands import BY_ID, BY_SLASH, COMMANDS, Given, Mistyped, Sent, read
from edgespec.tui.help import GROUPS, command_rows
from edgespec.tui.keymap import read_keymap
from edgespec.tui.settings import SETTINGS, setting_lines, with_setting

NOT_TOLD_APART = {"ctrl+i", "ctrl+m", "ctrl+h", "ctrl+j", "ctrl+c", "ctrl+p", "ctrl+x", "ctrl+e"}
"""Keys that terminals send for others, and keys that mean something else in the chat."""


def test_ids_words_and_keys_are_each_used_once() -> None:
    keys = [key for command in COMMANDS for key in command.keys.split(",") if key]
    assert len(BY_ID) == len(BY_SLASH) == len(COMMANDS)
    assert len(set(keys)) == len(keys)
    assert not set(keys) & NOT_TOLD_APART


def test_the_help_has_every_command() -> None:
    rows = [row for group in GROUPS for row in command_rows(group, {"theme": "f9"})]
    assert len(rows) == len(COMMANDS)
    assert any(name.split() == ["F9", "/theme"] for name, _ in rows)


@pytest.mark.parametrize(
    ("text", "command", "argument"),
    [
        ("/new", "new", ""),
        ("/NEW ", "new", ""),
        ("/set", "set", ""),
        ("/set temperature 0.3", "set", "temperature 0.3"),
        (
            "/system You are terse.\nAnswer in French.",
            "system",
            "You are terse.\nAnswer in French.",
        ),
        ("/import  ~/old chats.json ", "import", "~/old chats.json"),
    ],
)
def test_a_slash_and_a_word_are_a_command(text: str, command: str, argument: str) -> None:
    assert read(text) == Given(BY_ID[command], argument)


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("hello", "hello"),
        ("see /help", "see /help"),
        ("//new things", "/new things"),
        ("/usr/bin is where programs are", "/usr/bin is where programs are"),
        ("/usr/bin", "/usr/bin"),
        ("/etc holds settings", "/etc holds settings"),
        ("/ is a slash", "/ is a slash"),
        ("/", "/"),
        ("/*comment*/", "/*comment*/"),
        ("", ""),
    ],
)
def test_other_text_is_a_message(text: str, sent: str) -> None:
    assert read(text) == Sent(sent)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/exprot chat.md", "there is no /exprot; did you mean /export?"),
        ("/zzz", "there is no /zzz; F1 shows all commands"),
        ("/new chat please", "/new takes nothing after it"),
        ("/import", "/import needs something after it"),
    ],
)
def test_a_slip_is_told(text: str, told: str) -> None:
    meant = read(text)
    assert isinstance(meant, Mistyped) and told in meant.line


@pytest.mark.parametrize(
    ("content", "keys", "note"),
    [
        ('library = "Ctrl+K"\nstats = ["f2", "alt+s"]', {"library": "ctrl+k", "stats": "f2,alt+s"},
         None),
        ('tea = "f9"\nnew = "f8"', {"new": "f8"}, "keys.toml: there is no command tea"),
        (
            'stat = "f9"\nxyz = "f8"',
            {},
            "keys.toml: there is no command stat (stats?); there is no command xyz",
        ),
        ("new = 3\nstop = []", {}, "keys.toml: new needs a key such as 'ctrl+k'; stop needs"),
        ("new = ", {}, "keys.toml is not used: "),
        (b"new = '\xff'", {}, "keys.toml is not used: "),
    ],
)  # fmt: skip
def test_a_file_of_keys(
    tmp_path: Path, content: str | bytes, keys: dict[str, str], note: str | None
) -> None:
    path = tmp_path / "keys.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    keymap = read_keymap(path)
    assert keymap.keys == keys
    assert keymap.note == note or (note and str(keymap.note).startswith(note))
    assert "\n" not in (keymap.note or "")


def test_keys_without_a_file_or_with_a_folder_in_its_place(tmp_path: Path) -> None:
    assert read_keymap(tmp_path / "keys.toml").note is None
    assert "is not used" in str(read_keymap(tmp_path).note)


class Obedient(App[None]):
    """Does nothing but note the commands that its keys give."""

    BINDINGS = commands.bindings()

    def __init__(self) -> None:
        super().__init__()
        self.given: list[str] = []

    def action_command(self, command: str) -> None:
        self.given.append(command)


async def test_keys_of_a_user_replace_the_usual_ones() -> None:
    app = Obedient()
    async with app.run_test() as pilot:
        app.set_keymap({"library": "ctrl+k", "theme": "f9,f10"})
        await pilot.press("ctrl+k", "ctrl+l", "f9", "f10", "f2")
        assert app.given == ["library", "theme", "theme", "stats"]


def test_settings_are_set_and_taken_back() -> None:
    settings = with_setting(ChatSettings(system="Be brief."), "Temperature 0.3")
    settings = with_setting(settings, "top-k=40")
    assert (settings.temperature, settings.top_k, settings.system) == (0.3, 40, "Be brief.")
    assert with_setting(settings, "temperature default").temperature is None


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ("temprature 1", "did you mean temperature"),
        ("tea 1", "there are temperature, top_k"),
        ("temperature", "needs one number"),
        ("temperature hot", "temperature cannot be 'hot'; give a number from 0 to 10"),
        ("temperature nan", "temperature cannot be 'nan'"),
        ("top_p 1.5", "from 0 to 1"),
        ("seed 1.5", "give a whole number"),
    ],
)
def test_settings_that_make_no_sense_are_refused(argument: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        with_setting(ChatSettings(), argument)


def test_every_setting_can_be_set_and_is_listed() -> None:
    settings = ChatSettings()
    for setting in SETTINGS:
        settings = with_setting(settings, f"{setting.name} 1")
    for setting, line in zip(SETTINGS, setting_lines(settings), strict=True):
        assert line.replace("1.0", "1").split()[:2] == [setting.name, "1"]
    assert all(" default " in line for line in setting_lines(ChatSettings()))
