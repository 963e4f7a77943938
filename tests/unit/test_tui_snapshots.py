"""A few pictures of the chat, for what text cannot show: colours, and the narrowest window.

Accept a change with `make goldens` after looking at the new pictures. Size, theme and texts are
pinned; nothing blinks and no clock is shown.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from chat_scenes import SCENES, scene_app
from tui_support import AppPilot

SnapCompare = Callable[..., bool]


@pytest.fixture(autouse=True)
def colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same theme and colours on every machine."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("textual.constants.DEFAULT_THEME", "textual-dark")


def same(compare: SnapCompare, name: str, size: tuple[int, int]) -> bool:
    """Whether a scene looks as it did."""
    with scene_app(name) as (app, completer):

        async def play(pilot: AppPilot) -> None:
            await SCENES[name](pilot, completer, Path())

        return compare(app, terminal_size=size, run_before=play)


def test_a_conversation_with_list_and_code(snap_compare: SnapCompare) -> None:
    assert same(snap_compare, "conversation", (100, 40))


def test_forty_columns(snap_compare: SnapCompare) -> None:
    assert same(snap_compare, "conversation", (40, 40))


def test_without_colours(snap_compare: SnapCompare, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert same(snap_compare, "conversation", (80, 40))
