"""Screens of the chat, each brought about over a scripted completer: what goldens are made of."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from catalog_support import FakeCatalog
from tui_support import (
    AppPilot,
    GatedFactory,
    ScriptedCompleter,
    answers,
    ask,
    box,
    lines,
    ready,
    screen,
    send,
    status,
    until,
)

from edgespec.cache.chats.store import ChatStore
from edgespec.cache.database import open_in_memory
from edgespec.errors import NativeLibraryError
from edgespec.tui import ChatApp, ChatOptions, Services

NOW = 1_800_000_000.0
"""The time at which the screens are looked at, in seconds since 1970."""

SEARCH = """\
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

| values | steps at most |
|-------:|--------------:|
|    100 |             7 |
| 10,000 |            14 |
"""

SHORT = "Rivers wash salt out of rocks and carry it to the sea. Water evaporates, salt stays."

Scene = Callable[[AppPilot, ScriptedCompleter, Path], Awaitable[None]]
"""Does what a user does; files may be made in the folder, where the app was started."""

OLD_CHATS = (
    (40 * 86400, "Compare B-trees and LSM trees", "A B-tree keeps its pages sorted in place."),
    (3 * 86400, "Why is the sea salty?", SHORT),
    (26 * 3600, "Write a haiku about rain", "Rain on the window"),
    (2 * 3600, "Explain this stack trace to me, please, line by line", "The salt was missing."),
)


def filled_history() -> ChatStore:
    """Four chats of known ages, the oldest one pinned."""
    now = NOW
    store = empty_history(lambda: now)
    chats = []
    for age, question, answer in OLD_CHATS:
        now = NOW - age
        begun = store.begin(None, None, question)
        store.finish(begun.answer, answer, "done", "qwen2.5-coder-1.5b")
        chats.append(begun.chat)
    store.pin(chats[0], True)
    return store


def empty_history(clock: Callable[[], float] = lambda: NOW) -> ChatStore:
    """A history in memory with nothing in it."""
    return ChatStore(open_in_memory().connection, clock=clock)


async def empty(pilot: AppPilot, _completer: ScriptedCompleter, _folder: Path) -> None:
    await ready(pilot)


async def conversation(pilot: AppPilot, _completer: ScriptedCompleter, _folder: Path) -> None:
    await ready(pilot)
    await ask(pilot, "How does a binary search work?\nShow it in Python.")


async def tinted(pilot: AppPilot, completer: ScriptedCompleter, folder: Path) -> None:
    await conversation(pilot, completer, folder)
    await pilot.press("f3")


async def panel(pilot: AppPilot, completer: ScriptedCompleter, folder: Path) -> None:
    await conversation(pilot, completer, folder)
    await pilot.press("f2")
    await until(pilot, lambda: "50" in screen(pilot))


async def versions(pilot: AppPilot, _completer: ScriptedCompleter, _folder: Path) -> None:
    await ready(pilot)
    await ask(pilot, "Why is the sea salty?")
    await pilot.press("ctrl+r")
    await until(pilot, lambda: "2/2" in screen(pilot))
    await ready(pilot)


async def editing(pilot: AppPilot, _completer: ScriptedCompleter, _folder: Path) -> None:
    await ready(pilot)
    await ask(pilot, "Why is the sea salty?")
    await ask(pilot, "And the lakes?")
    await pilot.press("alt+up", "alt+up")


async def cut(pilot: AppPilot, completer: ScriptedCompleter, _folder: Path) -> None:
    await ready(pilot)
    await send(pilot, "Why is the sea salty?")
    completer.allow(4)
    await until(pilot, lambda: answers(pilot) == ["Rivers wash salt out "])
    await send(pilot, "A message that waits")
    await pilot.press("escape")  # the message that waits comes back
    await ready(pilot)


async def answering(pilot: AppPilot, completer: ScriptedCompleter, _folder: Path) -> None:
    await ready(pilot)
    await send(pilot, "Why is the sea salty?")
    completer.allow(4)
    await until(pilot, lambda: answers(pilot) == ["Rivers wash salt out "])
    await send(pilot, "And the lakes?")


async def incognito(pilot: AppPilot, _completer: ScriptedCompleter, _folder: Path) -> None:
    await ready(pilot)
    await send(pilot, "/incognito")
    await ask(pilot, "Why is the sea salty?")


async def error(pilot: AppPilot, _completer: ScriptedCompleter, _folder: Path) -> None:
    await ready(pilot)
    await ask(pilot, "Why is the sea salty?")
    await ask(pilot, "And the lakes?")
    await until(pilot, lambda: lines(pilot, "error"))


async def remarks(pilot: AppPilot, _completer: ScriptedCompleter, _folder: Path) -> None:
    await ready(pilot)
    await ask(pilot, "Why is the sea salty?")
    await ask(pilot, "And the lakes?")
    await send(pilot, "/set")
    await send(pilot, "/system")


async def attached(pilot: AppPilot, _completer: ScriptedCompleter, folder: Path) -> None:
    (folder / "notes.md").write_text("The sea is salty.\n" * 40)
    await ready(pilot)
    box(pilot).insert("Shorten these, please: ")
    await pilot.press("@", *"notes", "tab")
    await until(pilot, lambda: "tok" in box(pilot).text)


async def files(pilot: AppPilot, _completer: ScriptedCompleter, folder: Path) -> None:
    for name in ("notes.md", "sea.py", "docs/salt.md", "docs/rivers.md"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("salt\n")
    await ready(pilot)
    box(pilot).insert("Look at ")
    await pilot.press("@", "s")
    await until(pilot, lambda: "docs/salt.md" in screen(pilot))


async def commands(pilot: AppPilot, _completer: ScriptedCompleter, _folder: Path) -> None:
    await ready(pilot)
    await pilot.press("/")
    await until(pilot, lambda: "/library" in screen(pilot))


async def palette(pilot: AppPilot, _completer: ScriptedCompleter, _folder: Path) -> None:
    await ready(pilot)
    await pilot.press("ctrl+p")
    await until(pilot, lambda: "begin a new conversation" in screen(pilot))


async def help(pilot: AppPilot, _completer: ScriptedCompleter, _folder: Path) -> None:
    await ready(pilot)
    await pilot.press("f1")
    await until(pilot, lambda: "Escape closes" in screen(pilot))


async def library_empty(pilot: AppPilot, _completer: ScriptedCompleter, _folder: Path) -> None:
    await ready(pilot)
    await pilot.press("ctrl+l")
    await until(pilot, lambda: "nothing was said yet" in screen(pilot))


async def library(pilot: AppPilot, _completer: ScriptedCompleter, _folder: Path) -> None:
    await ready(pilot)
    await pilot.press("ctrl+l")
    await until(pilot, lambda: "haiku" in screen(pilot))


async def library_hits(pilot: AppPilot, completer: ScriptedCompleter, folder: Path) -> None:
    await library(pilot, completer, folder)
    await pilot.press(*"salt")
    await until(pilot, lambda: "haiku" not in screen(pilot))


async def library_renaming(pilot: AppPilot, completer: ScriptedCompleter, folder: Path) -> None:
    await library(pilot, completer, folder)
    await pilot.press("down", "ctrl+r")
    await until(pilot, lambda: "Enter renames" in screen(pilot))


async def loading(pilot: AppPilot, _completer: ScriptedCompleter, _folder: Path) -> None:
    await until(pilot, lambda: "40 %" in status(pilot).detail)
    await send(pilot, "Sent before the model was there")
    await pilot.press("n", "e", "x", "t")


async def models(pilot: AppPilot, _completer: ScriptedCompleter, _folder: Path) -> None:
    await ready(pilot)
    await send(pilot, "/model")
    await until(pilot, lambda: "can be pulled" in screen(pilot))


SCENES: dict[str, Scene] = {
    each.__name__.replace("_", "-"): each
    for each in (
        empty, loading, conversation, answering, cut, versions, editing, incognito, tinted, panel,
        error, remarks, attached, files, commands, palette, help, library, library_hits,
        library_renaming, library_empty, models,
    )
}  # fmt: skip

_GATED = ("cut", "answering")
_LONG = ("conversation", "tinted", "panel")
_WITH_CHATS = ("library", "library-hits", "library-renaming")


@contextlib.contextmanager
def scene_app(name: str) -> Iterator[tuple[ChatApp, ScriptedCompleter]]:
    """The app in which a scene happens, and what answers there."""
    sources = (
        "target",
        "context",
        "smollm2-135m",
        "smollm2-135m",
        "database",
        "database/statistics",
    )
    completer = ScriptedCompleter(
        *([SEARCH] if name in _LONG else [SHORT]),
        *([NativeLibraryError("llama_decode returned -3", "restart edgespec, or see doctor")]
          if name == "error" else []),
        gated=name in _GATED,
        finish="length" if name == "remarks" else "stop",
        num_dropped=(0, 2) if name == "remarks" else (),
        sources=lambda _word, number: sources[number % len(sources)],
    )  # fmt: skip
    history = filled_history() if name in _WITH_CHATS else empty_history()
    services = Services(history=history, catalog=FakeCatalog(), load=lambda *_: completer)
    options = ChatOptions(max_tokens=20 if name == "remarks" else None)
    factory = GatedFactory(completer)
    if name != "loading":
        factory.opened.set()
    yield ChatApp(factory, options, services), completer
    factory.opened.set()
    history.close()
