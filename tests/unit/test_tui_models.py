"""The screen of models: found by typing, chosen, pulled, and left while a pull goes on."""

from __future__ import annotations

import doctest

import pytest
from catalog_support import MODELS, FakeCatalog, ModelsApp, entry, still
from syrupy.assertion import SnapshotAssertion
from textual.content import Content
from textual.widgets import Static
from tui_support import AppPilot, screen, until

from edgespec.errors import NetworkError, StorageError
from edgespec.tui import models_screen
from edgespec.tui.model_rows import rows_of
from edgespec.tui.models_screen import Chosen, ModelsScreen
from edgespec.tui.terms import TermsScreen


async def listed(pilot: AppPilot) -> ModelsScreen:
    """The screen, once it shows what there is."""
    shown = pilot.app.screen
    assert isinstance(shown, ModelsScreen)
    await until(pilot, lambda: shown._models is not None)
    await pilot.pause()
    return shown


def app_of(pilot: AppPilot) -> ModelsApp:
    assert isinstance(pilot.app, ModelsApp)
    return pilot.app


def hint(shown: ModelsScreen) -> str:
    text = shown.query_one("#models-hint", Static).content
    assert isinstance(text, str | Content)
    return str(text)


async def found(pilot: AppPilot, text: str) -> ModelsScreen:
    shown = await listed(pilot)
    await pilot.press(*text)
    await pilot.pause()
    return shown


async def pulling(pilot: AppPilot, num_bytes: int = 100_000_000) -> ModelsScreen:
    """The 0.5B is being pulled, and came so far."""
    shown = await found(pilot, "0.5b")
    await pilot.press("enter")
    app = app_of(pilot)
    app.catalog.steps.put(num_bytes)
    await until(pilot, lambda: [each.num_bytes for each in app.pulls.states] == [num_bytes])
    await pilot.pause()
    return shown


@pytest.mark.parametrize("keys", [[], ["tab"]], ids=["answers", "drafts"])
@pytest.mark.parametrize("size", [(40, 15), (80, 24), (200, 50)], ids=str)
async def test_how_it_looks(
    keys: list[str], size: tuple[int, int], snapshot: SnapshotAssertion
) -> None:
    async with ModelsApp().run_test(size=size) as pilot:
        await listed(pilot)
        await pilot.press(*keys)
        assert await still(pilot) == snapshot


@pytest.mark.parametrize("size", [(40, 15), (80, 24)], ids=str)
async def test_how_a_pull_looks(size: tuple[int, int], snapshot: SnapshotAssertion) -> None:
    async with ModelsApp().run_test(size=size) as pilot:
        await pulling(pilot)
        assert await still(pilot) == snapshot


async def test_enter_chooses_who_answers_or_drafts() -> None:
    app = ModelsApp()
    async with app.run_test() as pilot:
        await found(pilot, "smol")
        await pilot.press("enter", "ctrl+o")
        await listed(pilot)
        await pilot.press("tab", "down", "enter", "ctrl+o")
        await listed(pilot)
        await pilot.press("tab", "tab", "down", "up", "enter", "ctrl+o")
        await listed(pilot)
        await pilot.press("escape")
    model, drafter = Chosen("model", "smollm2-135m"), Chosen("drafter", "context")
    assert app.chosen == [model, drafter, Chosen("model", "qwen2.5-coder-1.5b"), None]


async def test_a_click_chooses() -> None:
    app = ModelsApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await listed(pilot)
        await pilot.click("OptionList", offset=(5, 1))
        await pilot.pause()
    assert app.chosen == [Chosen("model", "qwen2.5-coder-1.5b")]


def test_letters_anywhere_in_name_or_title_find_a_model() -> None:
    names = [row.name for row in rows_of(MODELS, "model", "", "q05")]
    assert names == ["qwen2.5-coder-0.5b"]
    assert rows_of(MODELS, "model", "", "zzz") == []
    assert len(rows_of(MODELS, "model", "", "instruct")) == len(MODELS)


def test_those_that_are_made_for_it_come_first_and_the_one_that_serves_is_marked() -> None:
    rows = rows_of(MODELS, "drafter", "smollm2-135m")
    assert [row.name for row in rows][:4] == ["auto", "context", "none", "smollm2-135m"]
    assert [row.name for row in rows if row.is_current] == ["smollm2-135m"]
    own = entry("/home/me/own.gguf", 5)
    assert rows_of([own], "model", own.path.stem if own.path else "")[0].is_current


async def test_nothing_found_is_said_and_enter_does_nothing() -> None:
    app = ModelsApp()
    async with app.run_test() as pilot:
        shown = await found(pilot, "zzz")
        assert hint(shown).startswith("nothing is called so")
        await pilot.press("enter")
        assert app.screen is shown


async def test_models_that_cannot_be_listed_are_an_error_line() -> None:
    catalog = FakeCatalog()
    catalog.error = StorageError("cannot read /models", "make it readable")
    async with ModelsApp(catalog).run_test() as pilot:
        shown = await listed(pilot)
        assert hint(shown) == "cannot read /models; make it readable"
        assert shown.query_one("#models-hint").has_class("-error")


async def test_a_model_that_came_can_be_chosen() -> None:
    app = ModelsApp()
    async with app.run_test() as pilot:
        shown = await pulling(pilot)
        app.catalog.steps.put(None)
        await until(pilot, lambda: "is here" in hint(shown))
        assert not shown.query_one("#models-pulls").display
        await until(pilot, lambda: shown._row is not None and shown._row.group == "on disk")
        await pilot.press("enter")
    assert app.chosen == [Chosen("model", "qwen2.5-coder-0.5b")]


async def test_escape_stops_a_pull_and_enter_goes_on_from_there() -> None:
    app = ModelsApp()
    async with app.run_test() as pilot:
        shown = await pulling(pilot)
        assert "Esc stops it" in hint(shown)
        await pilot.press("escape")
        await until(pilot, lambda: "stopped; what came is kept" in hint(shown))
        assert app.screen is shown
        await pilot.press("enter")
        await until(pilot, lambda: app.catalog.began_at == [0, 100_000_000])
        app.catalog.steps.put(None)
        await until(pilot, lambda: "is here" in hint(shown))


async def test_a_pull_goes_on_when_the_screen_is_left() -> None:
    app = ModelsApp()
    async with app.run_test() as pilot:
        await pulling(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: app.chosen == [None])
        await pilot.press("ctrl+o")
        shown = await found(pilot, "smol")
        assert "100.0 MB of 491.4 MB" in screen(pilot)
        await pilot.press("escape")  # of another row: closes
        await until(pilot, lambda: len(app.chosen) == 2)
        app.catalog.steps.put(None)
        await until(pilot, lambda: [each.name for each in app.ended] == ["qwen2.5-coder-0.5b"])
        assert app.screen is not shown and app.ended[0].failure is None


async def test_a_pull_that_fails_is_one_line_with_a_way_on() -> None:
    app = ModelsApp()
    async with app.run_test(size=(100, 24)) as pilot:
        shown = await pulling(pilot)
        app.catalog.steps.put(NetworkError("the Hub stopped sending", "pull again"))
        await until(pilot, lambda: shown.query_one("#models-hint").has_class("-error"))
        assert hint(shown) == "the Hub stopped sending; pull again · Enter tries again"
        await pilot.press("enter")
        await until(pilot, lambda: len(app.catalog.began_at) == 2)
        assert not shown.query_one("#models-hint").has_class("-error")
        await pilot.press("escape")
        await until(pilot, lambda: len(app.ended) == 2)


async def test_terms_are_shown_and_only_a_yes_pulls() -> None:
    app = ModelsApp()
    async with app.run_test() as pilot:
        shown = await found(pilot, "gemma")
        for keys in (["enter"], ["escape"]):
            await pilot.press("enter")
            await until(pilot, lambda: isinstance(app.screen, TermsScreen))
            assert "Gemma Terms of Use" in screen(pilot)
            await pilot.press(*keys)
            await until(pilot, lambda: app.screen is shown)
            assert "terms were not accepted" in hint(shown)
        assert not app.catalog.began_at
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, TermsScreen))
        await pilot.press("up", "enter")
        await until(pilot, lambda: app.pulls.is_pulling("gemma-3-270m"))
        await pilot.press("escape")
        await until(pilot, lambda: len(app.ended) == 1)


def test_the_examples_hold() -> None:
    assert doctest.testmod(models_screen).failed == 0
