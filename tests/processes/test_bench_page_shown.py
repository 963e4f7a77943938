"""The page of a benchmark in a headless Chromium: at each width, light and dark, at rest."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench_reports import WAYS, bench_report
from browser_support import chromium
from playwright.sync_api import Browser, Page

from edgespec.bench.page import html
from edgespec.bench.records import Way

LONG = Way(name="a-peer-with-a-name-that-is-far-too-long", about="", is_peer=True)
REPORTS = {
    "usual": bench_report(),
    "week": bench_report(categories=("day1", "day2", "day3"), num_each=7, warm="week"),
    "few": bench_report(ways=WAYS[:2], categories=("chat",), num_each=2),
    "many": bench_report(
        ways=(*WAYS, LONG),
        categories=("chat", "code", "code edits", "translation", "mathematics", "german"),
        num_each=6,
    ),
}

# Boxes of all words that are drawn, but for those that touch by less than their letters.
_WORDS = """() => [...document.querySelectorAll('svg')].filter(svg => svg.getClientRects().length)
  .map(svg => ({
    name: svg.getAttribute('aria-label'), frame: svg.getBoundingClientRect().toJSON(),
    words: [...svg.querySelectorAll('text')].map(text => ({
      text: text.textContent, size: parseFloat(getComputedStyle(text).fontSize)
        * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width,
      fill: getComputedStyle(text).fill, ...text.getBoundingClientRect().toJSON()})),
  }))"""

# Tables, and their cells, that have more than there is room for.
_CRAMPED = """() => [...document.querySelectorAll('table, table *')].filter(it =>
    it.clientWidth && it.scrollWidth > it.clientWidth + 1
    || it.getBoundingClientRect().right > document.body.getBoundingClientRect().right)
  .map(it => it.textContent)"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as it:
        yield it


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    opened = browser.new_page()
    yield opened
    opened.close()


@functools.cache
def made(name: str) -> str:
    return html(REPORTS[name])


def show(page: Page, name: str, folder: Path, width: int, scheme: str) -> list[str]:
    """Open a report's page, all that is folded as well; what it asked for or complained of."""
    path = folder / "report.html"
    path.write_text(made(name), encoding="utf-8")
    noted: list[str] = []
    page.on("console", lambda line: noted.append(line.text))
    page.on("pageerror", lambda error: noted.append(str(error)))
    page.on("request", lambda request: noted.append(request.url))
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(path.as_uri())
    noted.remove(path.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    return noted


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("name", list(REPORTS))
def test_everything_fits_and_can_be_read(
    page: Page, tmp_path: Path, name: str, width: int, scheme: str
) -> None:
    assert show(page, name, tmp_path, width, scheme) == []
    page.screenshot(path=tmp_path / f"{name}-{width}-{scheme}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(_CRAMPED) == []
    plots = page.evaluate(_WORDS)
    assert len(plots) >= 5, "one of each pair is shown"
    ground = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert ground == ("rgb(251, 250, 248)" if scheme == "light" else "rgb(22, 23, 26)")
    for plot in plots:
        for index, word in enumerate(plot["words"]):
            assert word["size"] >= 11, (plot["name"], word)
            assert word["left"] >= plot["frame"]["left"] - 1, (plot["name"], word)
            assert word["right"] <= plot["frame"]["right"] + 1, (plot["name"], word)
            assert brightness(word["fill"]) > 90 or scheme == "light", (plot["name"], word)
            for other in plot["words"][index + 1 :]:
                assert not overlap(word, other), (plot["name"], word["text"], other["text"])


def brightness(colour: str) -> float:
    red, green, blue = (int(part) for part in colour[4:-1].split(","))
    return 0.3 * red + 0.6 * green + 0.1 * blue


def overlap(word: dict[str, float], other: dict[str, float]) -> bool:
    """Lines of text have room above and below the letters, which may touch."""
    across = min(word["right"], other["right"]) - max(word["left"], other["left"])
    down = min(word["bottom"], other["bottom"]) - max(word["top"], other["top"])
    return across > 1 and down > 4


@pytest.mark.parametrize("width", [400, 1400])
def test_on_a_phone_each_figure_stands_beside_its_name(
    page: Page, tmp_path: Path, width: int
) -> None:
    show(page, "usual", tmp_path, width, "light")
    table = page.get_by_role("table", name="Milliseconds of a decoded token")
    assert table.get_by_role("cell", name="edgespec").count() == 1
    assert table.locator("thead").is_visible() is (width == 1400)
    name = "getComputedStyle(it, '::before').content"
    said = table.locator("td").nth(1).evaluate(f"it => {name}")
    assert said == ('"target"' if width == 400 else "none")
    assert page.get_by_role("table", name="Passes by rows").locator("thead").is_visible()
