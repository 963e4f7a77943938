"""The page and the README's results as text; how a browser shows the page: tests/processes."""

from __future__ import annotations

import base64
import doctest
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
import results
from bench_reports import CATEGORIES, WAYS, bench_report

from edgespec.bench import figures, plots, table
from edgespec.bench.figures import summary
from edgespec.bench.page import html
from edgespec.bench.records import Way, write_report
from edgespec.errors import UsageError

REPORT = bench_report()
PAGE = html(REPORT)
HOSTILE = "<script>alert('1')</script> & \"$x_2$\""


class Seen(HTMLParser):
    """Tags of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_examples_hold() -> None:
    assert [doctest.testmod(module).failed for module in (figures, plots, table)] == [0, 0, 0]


def test_nothing_is_fetched_runs_or_has_a_style_of_its_own() -> None:
    seen = Seen(PAGE)
    names = {tag for tag, _ in seen.tags}
    assert not names & {"script", "link", "img", "iframe", "object", "form", "base"}
    for _, attributes in seen.tags:
        assert not {name for name in attributes if name.startswith("on")}
        assert "style" not in attributes and "src" not in attributes
        assert all((attributes.get(name) or "#")[0] == "#" for name in ("href", "xlink:href"))
    assert "@import" not in PAGE and "url(http" not in PAGE


def test_the_policy_allows_the_one_style_sheet_by_its_hash() -> None:
    [style] = re.findall(r"<style>(.*?)</style>", PAGE, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    [policy] = [
        tag["content"] for name, tag in Seen(PAGE).tags if name == "meta" and "content" in tag
    ][:1]
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def test_every_plot_has_a_name_and_its_figures_as_a_table() -> None:
    sections = PAGE.split("<section>")[1:]
    drawn = [section for section in sections if "<svg" in section]
    assert len(drawn) == 6
    for section in drawn:
        labels = [
            attributes.get("aria-label") for tag, attributes in Seen(section).tags if tag == "svg"
        ]
        assert len(labels) == 2 and labels[0] == labels[1] and labels[0]
        assert section.count("<table ") == 1
    assert Seen(PAGE).text.count("The figures as a table") == 7


def test_each_section_says_its_figure() -> None:
    text = " ".join(Seen(PAGE).text.split())
    value = summary(REPORT, "edgespec")
    code = summary(REPORT, "edgespec", ["code"]).decoding.median
    assert f"{value.decoding.median:.2f} times as fast as plain decoding" in text
    assert f"Most is won in code, {code:.2f}x, least in chat" in text
    assert f"{value.mbsu:.2f}x (MBSU)" in text
    assert f"{value.hindsight:.2f}x had each pass" in text
    for said in (
        "computed 2 rows: 58 ms, 1.09 times a single one's 53 ms",
        "were kept: ",
        "are the target's own passes; a plain token takes 53.2 ms",
        "Each box is a pass, each square a token",
        "By category the plot shows edgespec, llama-server, without-database and without-model "
        "only. The table has all 6 ways.",
        "Over the first third",
        "A prediction",
        "llama.cpp 1f2e (own)",
        "Left out: chat-99",
    ):
        assert said in text


def test_a_week_is_told_by_its_days_and_energy_and_scores_where_they_are_known() -> None:
    days = ("day1", "day2", "day3")
    report = bench_report(ways=WAYS[:2], categories=days, num_each=6, warm="week")
    runs = tuple(run.model_copy(update={"joules": 3.0 * run.num_tokens}) for run in report.runs)
    text = " ".join(Seen(html(report.model_copy(update={"runs": runs}))).text.split())
    assert "By category the plot shows" not in text, "it shows all that there is"
    assert "On day1 the median speed-up is" in text and "Over the run" not in text
    assert "edgespec takes 3.00 joules a token, plain decoding 3.00" in text
    assert "Scores" not in text and "Energy" not in Seen(PAGE).text
    assert "from 0 to 1: headings" in Seen(PAGE).text


def test_whatever_is_said_is_text() -> None:
    ways = (*WAYS[:2], Way(name=HOSTILE, about=HOSTILE, is_peer=True))
    report = bench_report(ways=ways, categories=(HOSTILE, "b"), num_each=6, left_out=(HOSTILE,))
    runs = tuple(run.model_copy(update={"text": HOSTILE}) for run in report.runs)
    page = html(report.model_copy(update={"runs": runs}))
    assert "<script" not in page
    assert not {tag for tag, _ in Seen(page).tags} & {"script"}
    assert Seen(page).text.count(HOSTILE) > 5


@pytest.mark.parametrize("num_each", [0, 1, 5])
def test_few_questions_make_a_page_without_intervals(num_each: int) -> None:
    page = html(bench_report(ways=WAYS[:2], categories=("chat",), num_each=num_each))
    text = Seen(page).text
    assert "95%:" not in text
    assert ("Nothing was measured both ways" in text) is (num_each == 0)


def test_drawings_for_the_readme_stand_alone_in_light_and_dark() -> None:
    text = results.results_svg(REPORT)
    root = ElementTree.fromstring(text)
    assert root.tag.endswith("svg") and "script" not in text
    assert "prefers-color-scheme:dark" in text
    said = "".join(root.itertext())
    for name in (*CATEGORIES, "edgespec", "llama-server"):
        assert name in said
    assert results.results_svg(REPORT) == text, "drawn alike each time"


def test_results_go_between_the_readmes_marks(tmp_path: Path) -> None:
    report, readme, svg = (tmp_path / name for name in ("report.json", "README.md", "r.svg"))
    write_report(report, REPORT)
    readme.write_text(f"before\n{results.BEGIN}\nold\n{results.END}\nafter\n", encoding="utf-8")
    for _ in range(2):
        results.main(str(report), str(readme), str(svg))
        text = readme.read_text(encoding="utf-8")
        assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
        assert text.count("| edgespec |") == 1
    assert "shows edgespec, llama-server, without-database and without-model only.\n" in text
    assert "Xeon" in text and "(Q4_K_M)" in text and svg.exists()
    assert text.count("\n|") == len(WAYS) + 2
    with pytest.raises(UsageError, match="no <!-- results -->"):
        results.with_results("nothing", "x")
    own = Path(__file__).parents[2] / "README.md"
    assert results.with_results(own.read_text(encoding="utf-8"), "x").count("\nx\n") == 1
