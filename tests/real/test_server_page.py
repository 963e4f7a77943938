"""The page at `/` in a headless Chromium, over a real server and the default model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser_support import chromium
from playwright.sync_api import Browser, Page, expect
from server_support import Serving, running_server

from edgespec.protocols import TextCompleter
from edgespec.server.settings import ServerSettings

pytestmark = pytest.mark.real

ASKED = "Answer with nothing but this in a code fence: def add(a, b): return a + b"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as it:
        yield it


class Opened:
    """A page, and what it did besides what is on it."""

    def __init__(self, page: Page, server: Serving) -> None:
        self.page = page
        url = f"http://{server.host}:{server.port}/"
        self.errors: list[str] = []
        self.foreign: list[str] = []
        page.on("console", lambda line: self.errors.append(line.text) if _is_bad(line) else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self._note(request.url, url))
        page.goto(url)

    def _note(self, asked: str, own: str) -> None:
        if not asked.startswith((own, "data:")):
            self.foreign.append(asked)

    def ask(self, text: str) -> None:
        self.page.get_by_label("Question").fill(text)
        self.page.get_by_label("Question").press("Enter")

    def wait(self) -> None:
        expect(self.page.locator("#chat")).to_have_attribute("aria-busy", "false", timeout=240_000)


def _is_bad(line: object) -> bool:
    return getattr(line, "type", "") in ("error", "warning")


@pytest.fixture
def opened(browser: Browser, real_completer: TextCompleter) -> Iterator[Opened]:
    with running_server(real_completer) as server:
        page = browser.new_page(viewport={"width": 400, "height": 800})
        yield Opened(page, server)
        page.close()


def test_an_answer_streams_with_its_sources_and_figures(opened: Opened) -> None:
    page = opened.page
    opened.ask(ASKED)
    opened.wait()
    expect(page.locator(".assistant pre").first).to_contain_text("def ")
    expect(page.locator("#figures")).to_contain_text("tok/s")
    opened.ask(ASKED)
    opened.wait()
    whole = page.locator(".assistant").last.inner_text()
    page.get_by_label("sources").check()
    assert page.locator(".assistant [data-source=context]").count() > 0, "nothing was copied"
    tinted = page.locator(".assistant").last.inner_text()
    assert "def " in whole
    assert "def " in tinted
    expect(page.locator("#legend")).to_be_visible()
    assert opened.errors == []
    assert opened.foreign == []


def test_stopping_keeps_what_came_and_a_new_chat_is_empty(opened: Opened) -> None:
    page = opened.page
    opened.ask("Count from one to two hundred in words.")
    expect(page.locator(".assistant")).to_contain_text("one", ignore_case=True, timeout=240_000)
    page.get_by_role("button", name="Stop").click()
    opened.wait()
    expect(page.locator(".assistant.cut")).to_have_count(1)
    page.get_by_role("button", name="New chat").click()
    expect(page.locator(".assistant")).to_have_count(0)
    assert opened.errors == []


def test_a_page_without_a_key_asks_for_it(browser: Browser, real_completer: TextCompleter) -> None:
    settings = ServerSettings(port=0, api_keys=("sesame",))
    with running_server(real_completer, settings) as server:
        page = browser.new_page()
        opened = Opened(page, server)
        page.get_by_label("API key").fill("sesame")
        page.get_by_role("button", name="Use it").click()
        expect(page.get_by_label("Model")).to_have_value(real_completer.model.name)
        opened.ask("Say hello.")
        opened.wait()
        assert page.locator(".assistant").inner_text()
        page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_sticks_out_at_any_width(
    opened: Opened, width: int, scheme: str, tmp_path: Path
) -> None:
    page = opened.page
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.set_viewport_size({"width": width, "height": 800})
    opened.ask(ASKED)
    opened.wait()
    page.screenshot(path=tmp_path / f"page-{width}-{scheme}.png")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
