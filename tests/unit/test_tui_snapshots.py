"""The look of the chat: pictures of a still app, to be looked at when one changes.

Accept a change with `pytest tests/unit/test_tui_snapshots.py --snapshot-update` after looking at
the new pictures. Size, theme and texts are pinned; nothing blinks and no clock is shown.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from textual.pilot import Pilot
from tui_support import (
    AppPilot,
    GatedFactory,
    ScriptedCompleter,
    answers,
    ask,
    lines,
    ready,
    send,
    status,
    until,
)

from edgespec.errors import NativeLibraryError
from edgespec.tui import ChatApp, ChatOptions

SnapCompare = Callable[..., bool]

ANSWER = """\
A **binary search** halves the range until the value is found, `O(log n)` steps in all:

1. Look at the middle value.
2. If it is the one, stop; otherwise keep the half that can hold it.
3. Repeat until the range is empty.

```python
def search(values: list[int], wanted: int) -> int | None:
    low, high = 0, len(values)
    while low < high:
        middle = (low + high) // 2
        if values[middle] == wanted:
            return middle
        low, high = (middle + 1, high) if values[middle] < wanted else (low, middle)
    return None
```
"""


@pytest.fixture(autouse=True)
def colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same theme and colours on every machine, and hints that stay."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("textual.constants.DEFAULT_THEME", "textual-dark")
    monkeypatch.setattr("edgespec.tui.message_input.HINT_SECONDS", 600)


def conversation() -> ChatApp:
    return ChatApp(ScriptedCompleter(ANSWER))


async def one_turn(pilot: Pilot[object]) -> None:
    await ready(pilot)
    await ask(pilot, "How does a binary search work?\nShow it in Python.")


def test_empty(snap_compare: SnapCompare) -> None:
    app = ChatApp(ScriptedCompleter("one"))
    assert snap_compare(app, terminal_size=(100, 30), run_before=ready)


def test_loading_with_a_message_waiting(snap_compare: SnapCompare) -> None:
    factory = GatedFactory(ScriptedCompleter("one"))

    async def type_early(pilot: AppPilot) -> None:
        await until(pilot, lambda: "40 %" in status(pilot).detail)
        await send(pilot, "Sent before the model was there")
        await pilot.press("n", "e", "x", "t")

    app = ChatApp(factory)
    assert snap_compare(app, terminal_size=(100, 30), run_before=type_early)
    factory.opened.set()


def test_a_conversation_with_list_and_code(snap_compare: SnapCompare) -> None:
    assert snap_compare(conversation(), terminal_size=(100, 36), run_before=one_turn)


def test_forty_columns(snap_compare: SnapCompare) -> None:
    assert snap_compare(conversation(), terminal_size=(40, 40), run_before=one_turn)


def test_two_hundred_columns(snap_compare: SnapCompare) -> None:
    assert snap_compare(conversation(), terminal_size=(200, 36), run_before=one_turn)


def test_without_colours(snap_compare: SnapCompare, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert snap_compare(conversation(), terminal_size=(80, 36), run_before=one_turn)


def test_an_error_line(snap_compare: SnapCompare) -> None:
    error = NativeLibraryError("llama_decode returned -3", "restart edgespec, or see doctor")
    app = ChatApp(ScriptedCompleter("A first answer.", error))

    async def second_fails(pilot: AppPilot) -> None:
        await ready(pilot)
        await ask(pilot, "First?")
        await ask(pilot, "Second?")
        await until(pilot, lambda: lines(pilot, "error"))

    assert snap_compare(app, terminal_size=(80, 24), run_before=second_fails)


def test_remarks_of_the_app(snap_compare: SnapCompare) -> None:
    completer = ScriptedCompleter("An answer.", finish="length", num_dropped=(0, 2))
    app = ChatApp(completer, ChatOptions(max_tokens=2))

    async def two_turns(pilot: AppPilot) -> None:
        await ready(pilot)
        await ask(pilot, "First?")
        await ask(pilot, "Second?")

    assert snap_compare(app, terminal_size=(80, 24), run_before=two_turns)


def test_an_answer_under_way(snap_compare: SnapCompare) -> None:
    completer = ScriptedCompleter("one two three four", gated=True)

    async def half(pilot: AppPilot) -> None:
        await ready(pilot)
        await send(pilot, "Count")
        completer.allow(1)
        await until(pilot, lambda: answers(pilot) == ["one "])
        await send(pilot, "A message that waits")
        await pilot.press("escape")  # the waiting message comes back
        await ready(pilot)

    app = ChatApp(completer)
    assert snap_compare(app, terminal_size=(80, 24), run_before=half)


def test_help(snap_compare: SnapCompare) -> None:
    async def open_help(pilot: AppPilot) -> None:
        await ready(pilot)
        await pilot.press("f1")

    app = ChatApp(ScriptedCompleter("one"))
    before: Callable[[AppPilot], Awaitable[None]] = open_help
    assert snap_compare(app, terminal_size=(90, 44), run_before=before)
