"""The first chat in a new home: models are fetched while the app shows and takes a message."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from catalog_support import FakeCatalog, entry
from tui_support import (
    MODEL,
    AppPilot,
    ScriptedCompleter,
    answers,
    lines,
    ready,
    screen,
    send,
    until,
)

from edgespec.catalog import Catalog
from edgespec.cli.chat import Loader
from edgespec.errors import NetworkError
from edgespec.reports import is_progress
from edgespec.runtime.host import Host
from edgespec.runtime.request import LoadRequest
from edgespec.tui import ChatApp, ChatOptions, Services, TermsQuestion
from edgespec.tui.terms import TermsScreen
from edgespec.types import SamplingParams

TARGET = entry("qwen2.5-coder-1.5b", 1_117_320_768, on_disk=False)
DRAFTER = entry("smollm2-135m", 98_362_432, on_disk=False)
TERMED = entry("gemma-3-270m", 253_113_024, on_disk=False, terms="Be kind to each other.")


class LoadingHost(ScriptedCompleter):
    """A host that loads at once, and remembers what."""

    def __init__(self) -> None:
        super().__init__("An answer.")
        self.loaded: list[tuple[LoadRequest, Path]] = []

    def load(self, request: LoadRequest, path: Path, *_rest: object) -> None:
        self.loaded.append((request, path))

    def cancel_load(self) -> None:
        assert not self.loaded


def factory(
    host: LoadingHost, catalog: Catalog, request: LoadRequest, terms: TermsQuestion | None = None
) -> Loader:
    loader = Loader(cast(Host, host), request, SamplingParams(), catalog)
    loader.accept_terms = terms or TermsQuestion()
    return loader


def first_run(
    catalog: FakeCatalog, host: LoadingHost, terms: TermsQuestion | None = None
) -> ChatApp:
    options = ChatOptions(pull_when_loaded=DRAFTER.name)
    request = LoadRequest(model=catalog.listed[0].name, drafter="auto")
    loader = factory(host, catalog, request, terms)
    services = Services(catalog=catalog, terms=terms, cancel_load=loader.cancel)
    return ChatApp(loader, options, services)


async def fetching(pilot: AppPilot, catalog: FakeCatalog) -> None:
    """So much of the target came."""
    catalog.steps.put(312_000_000)
    await until(pilot, lambda: "312.0 MB of 1.12 GB" in screen(pilot))


async def test_it_shows_what_is_fetched_and_takes_a_message() -> None:
    catalog, host = FakeCatalog([TARGET, DRAFTER]), LoadingHost()
    app = first_run(catalog, host)
    async with app.run_test(size=(110, 24)) as pilot:
        await fetching(pilot, catalog)
        assert "fetching qwen2.5-coder-1.5b: 312.0 MB of 1.12 GB" in screen(pilot)
        assert "Ctrl+Q keeps what came" in screen(pilot)
        await send(pilot, "Sent while it is fetched")
        assert not host.loaded
        catalog.steps.put(None)
        await until(pilot, lambda: answers(pilot) == ["An answer."])
        assert [path.stem for _, path in host.loaded] == [TARGET.name]


async def test_escape_stops_the_fetching_which_goes_on_where_it_was() -> None:
    catalog, host = FakeCatalog([TARGET, DRAFTER]), LoadingHost()
    app = first_run(catalog, host)
    async with app.run_test(size=(110, 24)) as pilot:
        await fetching(pilot, catalog)
        await pilot.press("escape")
        await until(pilot, lambda: "Ctrl+R tries again" in screen(pilot))
        assert app.return_value is None and not host.loaded
        await pilot.press("ctrl+r")
        await until(pilot, lambda: catalog.began_at == [0, 312_000_000])
        catalog.steps.put(None)
        await ready(pilot)


async def test_the_drafter_comes_once_the_model_answers() -> None:
    catalog, host = FakeCatalog([TARGET, DRAFTER]), LoadingHost()
    app = first_run(catalog, host)
    async with app.run_test(size=(110, 24)) as pilot:
        await fetching(pilot, catalog)
        assert len(catalog.began_at) == 1
        catalog.steps.put(None)
        await ready(pilot)
        await until(pilot, lambda: len(catalog.began_at) == 2)
        catalog.steps.put(None)
        await until(pilot, lambda: lines(pilot, "note") == ["smollm2-135m is here"])


async def test_a_drafter_that_does_not_come_is_one_line() -> None:
    catalog, host = FakeCatalog([TARGET, DRAFTER]), LoadingHost()
    catalog.steps.put(None)
    catalog.steps.put(NetworkError("the Hub cannot be reached", "check the network"))
    app = first_run(catalog, host)
    async with app.run_test(size=(110, 24)) as pilot:
        await until(pilot, lambda: lines(pilot, "note"))
        wanted = "smollm2-135m was not pulled: the Hub cannot be reached; check the network"
        assert lines(pilot, "note") == [wanted]


async def test_without_the_model_there_is_no_chat() -> None:
    catalog = FakeCatalog([TARGET, DRAFTER])
    catalog.steps.put(NetworkError("the Hub cannot be reached", "what came is kept"))
    app = first_run(catalog, LoadingHost())
    async with app.run_test() as pilot:
        await until(pilot, lambda: app.return_value is not None)
    assert app.return_value is not None
    assert app.return_value.exit_code == NetworkError.exit_code
    assert app.return_value.message == "the Hub cannot be reached; what came is kept"


async def test_terms_are_asked_within_the_app() -> None:
    catalog, host, terms = FakeCatalog([TERMED, DRAFTER]), LoadingHost(), TermsQuestion()
    app = first_run(catalog, host, terms)
    catalog.steps.put(None)
    async with app.run_test() as pilot:
        await until(pilot, lambda: isinstance(app.screen, TermsScreen))
        await pilot.pause()
        assert "Be kind to each other." in screen(pilot)
        await pilot.press("up", "enter")
        await until(pilot, lambda: host.loaded)


async def test_terms_that_are_refused_end_the_chat_with_a_line() -> None:
    catalog, host, terms = FakeCatalog([TERMED, DRAFTER]), LoadingHost(), TermsQuestion()
    app = first_run(catalog, host, terms)
    async with app.run_test() as pilot:
        await until(pilot, lambda: isinstance(app.screen, TermsScreen))
        await pilot.press("escape")
        await until(pilot, lambda: app.return_value is not None)
    assert app.return_value is not None and "terms were not" in (app.return_value.message or "")
    assert not host.loaded


def test_a_drafter_with_a_name_is_fetched_before_it_is_loaded() -> None:
    catalog, host = FakeCatalog([TARGET, DRAFTER]), LoadingHost()
    catalog.steps.put(5)
    catalog.steps.put(None)
    catalog.steps.put(None)
    told: list[str] = []
    load = factory(host, catalog, LoadRequest(model=TARGET.name, drafter=DRAFTER.name))
    assert cast(Any, load(told.append)) is host
    ((request, path),) = host.loaded
    assert (path.stem, request.drafter_path) == (TARGET.name, Path(f"/models/{DRAFTER.name}.gguf"))
    assert any("smollm2-135m: " in line for line in told)
    assert all(is_progress(line) for line in told)
    assert host.model == MODEL
