"""What the README says of the chat is so: its keys, its commands, its picture."""

from __future__ import annotations

import re
from pathlib import Path

import chat_picture

from edgespec.tui.commands import BY_SLASH, keys_of
from edgespec.tui.settings import SETTINGS

ROOT = Path(__file__).parents[2]
CHAT = (ROOT / "README.md").read_text().partition("### chat\n")[2].partition("\n### ")[0]
ROWS = re.findall(r"^\| (.+) \| (`/.+`) \| .+ \|$", CHAT, re.MULTILINE)


def test_keys_are_those_of_the_commands() -> None:
    assert len(ROWS) > 10
    for keys, words in ROWS:
        commands = [BY_SLASH[word] for word in re.findall(r"`/(\w+)`", words)]
        wanted = [key for command in commands for key in keys_of(command, {}).split(", ")]
        assert set(keys.split(", ")) <= set(wanted)


def test_every_command_is_told_and_none_else() -> None:
    told = re.findall(r"`/(\w+)", CHAT)
    assert set(told) <= set(BY_SLASH)
    assert set(BY_SLASH) - set(told) == {"end"}
    names = {setting.name for setting in SETTINGS}
    assert set(re.findall(r"`/set (\w+)", CHAT)) <= names


async def test_the_picture_is_as_the_chat_looks() -> None:
    shown = await chat_picture.picture()
    assert shown == (ROOT / "docs" / "chat.svg").read_text(), "make picture draws it anew"
