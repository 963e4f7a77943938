"""Which model serves: another one, none at all, those that a conversation was switched to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from catalog_support import FakeCatalog
from tui_support import (
    MODEL,
    AppPilot,
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

from edgespec.cache.chats.store import ChatStore
from edgespec.chats import ChatSettings
from edgespec.errors import LoadCancelled, ModelFileError
from edgespec.protocols import Completer
from edgespec.reports import Report
from edgespec.runtime.history import open_incognito
from edgespec.tui import ChatApp, ChatOptions, ChatOutcome, Services
from edgespec.tui.worker import LoadProgress

SIZE = (100, 30)


@pytest.fixture
def history() -> Iterator[ChatStore]:
    with open_incognito() as store:
        yield store


def app_of(completer: ScriptedCompleter, history: ChatStore, **services: object) -> ChatApp:
    return ChatApp(completer, ChatOptions(), Services(history=history, **services))  # type: ignore[arg-type]


class Loading:
    """`Services.load` of one that waits until it is opened, cancelled, or told to fail."""

    def __init__(self, completer: Completer) -> None:
        self.asked: list[tuple[str | None, str | None]] = []
        self.opened = threading.Event()
        self.error: Exception | None = None
        self._completer = completer

    def load(self, model: str | None, drafter: str | None, _report: Report) -> Completer:
        self.asked.append((model, drafter))
        assert self.opened.wait(10)
        self.opened.clear()
        if self.error is not None:
            raise self.error
        return self._completer

    def cancel(self) -> None:
        self.error = LoadCancelled("the model was not loaded: it was cancelled")
        self.opened.set()

    def services(self) -> dict[str, object]:
        return {"catalog": FakeCatalog(), "load": self.load, "cancel_load": self.cancel}


async def test_escape_takes_back_the_model_that_is_being_loaded(history: ChatStore) -> None:
    completer = ScriptedCompleter("one")
    loading = Loading(completer)
    async with app_of(completer, history, **loading.services()).run_test(size=SIZE) as pilot:
        await ready(pilot)
        await send(pilot, "/model other")
        await until(pilot, lambda: loading.asked == [("other", None)])
        assert status(pilot).state == "loading"
        await send(pilot, "/drafter none")
        assert "Esc takes it back" in screen(pilot)
        await pilot.press("escape")
        await ready(pilot)
        pilot.app.post_message(LoadProgress("loading the one before"))
        await pilot.pause()
        assert status(pilot).state == "ready"
        assert lines(pilot, "note") == [
            f"the model was not loaded: it was cancelled · {MODEL.name} goes on"
        ]
        assert loading.asked == [("other", None)]
        await ask(pilot, "Hi")
        assert answers(pilot) == ["one"]


async def test_a_message_sent_while_another_model_is_loaded_waits_for_it(
    history: ChatStore,
) -> None:
    completer, other = ScriptedCompleter("old"), ScriptedCompleter("new")
    loading = Loading(other)
    async with app_of(completer, history, **loading.services()).run_test(size=SIZE) as pilot:
        await ready(pilot)
        await send(pilot, "/model other")
        await until(pilot, lambda: loading.asked)
        await send(pilot, "Hi")
        await until(pilot, lambda: questions(pilot) == ["Hi"])
        await pilot.press("escape")
        assert box(pilot).text == "Hi" and status(pilot).state == "loading"
        await pilot.press("enter")
        loading.opened.set()
        await until(pilot, lambda: answers(pilot) == ["new"])
    assert not completer.requests


async def test_escape_ends_the_first_load_and_there_is_a_way_on(history: ChatStore) -> None:
    loading = Loading(ScriptedCompleter("one"))

    def first(report: Report) -> Completer:
        return loading.load("first", None, report)

    app = ChatApp(first, ChatOptions(), Services(history=history, **loading.services()))  # type: ignore[arg-type]
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: loading.asked)
        await send(pilot, "Hi")
        await until(pilot, lambda: questions(pilot) == ["Hi"])
        await pilot.press("escape")
        assert (box(pilot).text, status(pilot).state) == ("Hi", "loading"), "it is taken back first"
        await pilot.press("escape")
        await until(pilot, lambda: status(pilot).state == "failed")
        await until(pilot, lambda: "Ctrl+R tries again · /model takes another one" in screen(pilot))
        assert app.return_value is None and app.outcome == ChatOutcome()
        await pilot.press("enter")
        await until(pilot, lambda: box(pilot).text == "Hi")
        loading.error = None
        await pilot.press("ctrl+r")
        await until(pilot, lambda: len(loading.asked) == 2)
        loading.opened.set()
        await ready(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: answers(pilot) == ["one"])


# The models of a conversation


async def switched(pilot: AppPilot, loading: Loading, *commands: str) -> None:
    """A conversation is switched to other models."""
    await ready(pilot)
    for command in commands:
        loading.opened.set()
        num_notes = len(lines(pilot, "note"))
        await send(pilot, command)
        await until(pilot, lambda seen=num_notes: len(lines(pilot, "note")) > seen)  # type: ignore[misc]
        await ready(pilot)


async def test_what_a_conversation_was_switched_to_comes_back_with_it(history: ChatStore) -> None:
    completer = ScriptedCompleter("one")
    loading = Loading(completer)
    async with app_of(completer, history, **loading.services()).run_test(size=SIZE) as pilot:
        await ready(pilot)
        await ask(pilot, "Hi")
        await switched(pilot, loading, "/model smollm2-135m", "/drafter none")
    chat = history.recent()[0].id
    loading.asked.clear()
    app = app_of(completer, history, **loading.services())
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        app.turns.add(lambda: app.actions.open_chat(chat))
        await until(pilot, lambda: loading.asked == [("smollm2-135m", "none")])
        loading.opened.set()
        await ready(pilot)
        app.turns.add(lambda: app.actions.open_chat(chat))
        await ask(pilot, "And?")
    assert len(loading.asked) == 1, "they serve already"


@pytest.mark.parametrize("model", ["qwen2.5-coder-0.5b", "~no-such-user/x.gguf", "x" * 300])
@pytest.mark.parametrize("are_named", [False, True])
async def test_a_chat_that_is_gone_on_with_loads_its_models_first(
    history: ChatStore, model: str, are_named: bool
) -> None:
    settings = ChatSettings(model=model, drafter="context")
    begun = history.begin(None, None, "Hi", settings)
    history.finish(begun.answer, "Ho", "done")
    completer = ScriptedCompleter("one")
    loading, factory = Loading(completer), GatedFactory(completer)
    options = ChatOptions(chat=begun.chat, are_named=are_named)
    app = ChatApp(factory, options, Services(history=history, **loading.services()))  # type: ignore[arg-type]
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: answers(pilot) == ["Ho"])
        if not are_named:
            missing = f"{model}, which served here before, is not on disk"
            await until(pilot, lambda: lines(pilot, "note") == [missing])
        factory.opened.set()
        loading.opened.set()
        await ready(pilot)
        assert loading.asked == ([] if are_named else [(None, "context")])
        assert factory.entered.is_set() is are_named, "one load is enough"


async def test_a_chat_that_is_opened_while_a_model_loads_gets_its_own_after_it(
    history: ChatStore,
) -> None:
    begun = history.begin(None, None, "Hi", ChatSettings(drafter="context"))
    history.finish(begun.answer, "Ho", "done")
    completer = ScriptedCompleter("one")
    loading, factory = Loading(completer), GatedFactory(completer)
    app = ChatApp(factory, ChatOptions(), Services(history=history, **loading.services()))  # type: ignore[arg-type]
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, factory.entered.is_set)
        app.turns.add(lambda: app.actions.open_chat(begun.chat))
        await until(pilot, lambda: answers(pilot) == ["Ho"])
        await send(pilot, "And?")
        assert loading.asked == []
        factory.opened.set()
        await until(pilot, lambda: loading.asked == [(None, "context")])
        assert not completer.requests
        loading.opened.set()
        await until(pilot, lambda: answers(pilot) == ["Ho", "one"])


@pytest.mark.parametrize("typo", [False, True])
async def test_where_no_model_was_loaded_another_one_can_be(history: ChatStore, typo: bool) -> None:
    factory = GatedFactory(error=ModelFileError("qwen.gguf is truncated", "pull it again"))
    loading = Loading(ScriptedCompleter("one"))
    app = ChatApp(factory, ChatOptions(), Services(history=history, **loading.services()))  # type: ignore[arg-type]
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, factory.entered.is_set)
        box(pilot).insert("/model other")
        factory.opened.set()
        await until(pilot, lambda: status(pilot).state == "failed")
        if typo:
            loading.error = ModelFileError("there is no other", "name one that is here")
            loading.opened.set()
            await pilot.press("enter")
            await until(pilot, lambda: len(lines(pilot, "error")) == 2)
            loading.error = None
            box(pilot).insert("/model another")
        loading.opened.set()
        await pilot.press("enter")
        await ready(pilot)
        await ask_any(pilot, "Hi", lambda: answers(pilot) == ["one"])


async def ask_any(pilot: AppPilot, text: str, is_there: Callable[[], bool]) -> None:
    """Send `text` and wait."""
    await send(pilot, text)
    await until(pilot, is_there)
