"""The panel of figures: what is computed, what is unknown, and how it looks."""

from __future__ import annotations

import doctest
from dataclasses import replace

import pytest
from catalog_support import still
from hypothesis import given
from hypothesis import strategies as st
from syrupy.assertion import SnapshotAssertion
from textual.app import App, ComposeResult
from textual.widgets import Static
from tui_support import MODEL, ScriptedCompleter, ask, ready, screen, until

from edgespec import types
from edgespec.tui import ChatApp, sources, stats, stats_view
from edgespec.tui.sources import CATEGORIES, CATEGORY_COLOURS, CATEGORY_LABELS
from edgespec.tui.stats import BREAKPOINTS, StatsPanel, apportioned
from edgespec.tui.stats_view import (
    DrafterCost,
    Insight,
    StatsView,
    insight_of,
    shares_of,
)
from edgespec.types import (
    Completion,
    DrafterCounts,
    Span,
    SpeculationStats,
    Timings,
    memory_bound_speedup,
)

STATS = SpeculationStats(
    emitted=100,
    target_passes=40,
    by_drafter={"context": DrafterCounts(30, 20), "smollm2-135m": DrafterCounts(80, 40)},
)
TIMINGS = Timings(
    prompt_ms=500,
    decode_ms=4950,
    time_to_first_token_ms=500,
    num_prompt_tokens=200,
    num_cached_tokens=0,
    num_decoded_tokens=100,
    plain_token_ms=60,
)
SPANS = [Span(40, "target"), Span(30, "context"), Span(10, "database"), Span(120, "smollm2-135m")]
INSIGHT = Insight(
    pass_ms={1: 30.4, 2: 32.0, 3: 33.0, 4: 35.2, 8: 42.0, 16: 68.0},
    plain_token_ms=80,
    target_bytes=1_000_000_000,
    drafters={"context": DrafterCost(0.01, 0), "smollm2-135m": DrafterCost(4.5, 50_000_000)},
    idle=("T(r) is measured", "forms of drafters are weighed"),
)


def completion(tokens_per_second: float) -> Completion:
    timings = replace(TIMINGS, decode_ms=99e3 / tokens_per_second)
    return Completion("text", (), "stop", timings, STATS)


VIEW = stats_view.stats_view(
    STATS, TIMINGS, [completion(speed) for speed in (14, 18, 22, 20)], SPANS, INSIGHT
)


def test_the_figures_are_those_of_the_metrics() -> None:
    assert VIEW.tokens_per_second == pytest.approx(20)
    assert VIEW.plain_tokens_per_second == 12.5  # as measured when the machine was as busy
    assert VIEW.speedup == pytest.approx(1.6)
    assert VIEW.acceptance == pytest.approx(60 / 110)
    assert VIEW.block_efficiency == 2.5
    # gamma = 2 model drafts a pass, c = 1/20
    assert VIEW.mbsu == pytest.approx(2.5 / (2 / 20 + 1))
    assert VIEW.shares == (("target", 0.2), ("context", 0.15), ("model", 0.05), ("drafter", 0.6))
    assert VIEW.history == pytest.approx((14, 18, 22, 20))
    assert [(each.name, each.token_ms) for each in VIEW.drafters] == [
        ("context", 0.01),
        ("smollm2-135m", 4.5),
    ]


def test_what_is_not_known_is_none_and_no_guess() -> None:
    assert stats_view.stats_view(None, None) == StatsView()
    without = stats_view.stats_view(STATS, TIMINGS)
    assert without.speedup == pytest.approx(1.2)  # by what the answer tells itself
    assert without.mbsu is None
    assert without.pass_ms == () and without.history == ()
    one = replace(TIMINGS, num_decoded_tokens=1)
    assert stats_view.stats_view(None, one, [Completion("", (), "stop", one, STATS)]).history == ()


def test_the_engine_tells_what_a_guess_reads() -> None:
    drafters = (
        types.DrafterInsight("context", DrafterCounts()),
        types.DrafterInsight("smollm2-135m", DrafterCounts(), 4.5, None, 50_000_000),
    )
    told = insight_of(types.Insight({1: 30.0}, 0, drafters), MODEL)
    c = 50_000_000 / MODEL.size_bytes
    assert memory_bound_speedup(STATS, told.guess_bytes, told.target_bytes) == pytest.approx(
        2.5 / (2 * c + 1)
    )
    unknown = types.DrafterInsight("smollm2-135m", DrafterCounts(), 4.5)
    told = insight_of(types.Insight({1: 30.0}, 0, (unknown,)), MODEL)
    assert memory_bound_speedup(STATS, told.guess_bytes, told.target_bytes) is None


class Learning(ScriptedCompleter):
    """Knows a drafter once it was asked something."""

    def insight(self) -> types.Insight:
        known = types.DrafterInsight("small", DrafterCounts(), 4.0, None, 1000)
        return types.Insight({1: 50.0}, 0, (known,) if self.requests else ())


async def test_what_an_answer_taught_the_engine_is_shown_after_it() -> None:
    async with ChatApp(Learning("one two")).run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        await pilot.press("f2")
        await until(pilot, lambda: "Drafters" in screen(pilot))
        await ask(pilot, "count")
        await until(pilot, lambda: "small" in screen(pilot))


def test_look_ups_read_no_weights_and_others_are_unknown_until_told() -> None:
    look_ups = replace(STATS, by_drafter={"context": DrafterCounts(30, 20)})
    assert memory_bound_speedup(look_ups, {}, None) == 2.5
    known = INSIGHT.guess_bytes
    assert memory_bound_speedup(SpeculationStats(), known, INSIGHT.target_bytes) is None
    assert memory_bound_speedup(STATS, known, None) is None


def test_without_pieces_the_shares_are_those_of_the_tokens() -> None:
    shares = stats_view.stats_view(STATS, TIMINGS).shares
    assert shares == (("target", 0.4), ("context", 0.2), ("drafter", 0.4))


@given(st.lists(st.tuples(st.integers(0, 500), st.sampled_from(["target", "context", "any"]))))
def test_shares_add_up(pieces: list[tuple[int, str]]) -> None:
    shares = shares_of([Span(*piece) for piece in pieces])
    assert sum(share for _, share in shares) == pytest.approx(1 if any(n for n, _ in pieces) else 0)


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=6), st.integers(6, 120))
def test_a_bar_is_as_wide_as_it_should_and_shows_all(parts: list[int], width: int) -> None:
    cells = apportioned([part / sum(parts) for part in parts], width)
    assert sum(cells) == width
    assert min(cells) >= 1


def test_every_category_has_a_name_and_a_colour() -> None:
    assert set(CATEGORY_LABELS) == set(CATEGORY_COLOURS) == set(CATEGORIES)
    assert len(set(CATEGORY_COLOURS.values())) == len(CATEGORIES)


@pytest.mark.parametrize("module", [sources, stats, stats_view])
def test_the_examples_hold(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


class PanelApp(App[None]):
    """The panel where the chat has it, between conversation and input."""

    HORIZONTAL_BREAKPOINTS = BREAKPOINTS
    CSS = "#transcript { height: 1fr; } #foot { height: 3; }"

    def compose(self) -> ComposeResult:
        yield Static("transcript", id="transcript")
        yield StatsPanel()
        yield Static("foot", id="foot")

    def on_mount(self) -> None:
        self.query_one(StatsPanel).display = True


@pytest.mark.parametrize("view", [VIEW, StatsView()], ids=["known", "unknown"])
@pytest.mark.parametrize("size", [(40, 15), (80, 24), (200, 50)], ids=str)
async def test_how_it_looks(
    view: StatsView, size: tuple[int, int], snapshot: SnapshotAssertion
) -> None:
    async with PanelApp().run_test(size=size) as pilot:
        pilot.app.query_one(StatsPanel).show(view)
        assert await still(pilot) == snapshot


async def test_it_takes_another_place_when_the_window_changes() -> None:
    async with PanelApp().run_test(size=(120, 30)) as pilot:
        panel = pilot.app.query_one(StatsPanel)
        panel.show(VIEW)
        await until(pilot, lambda: panel.region.x == 80)
        await pilot.resize_terminal(80, 30)
        await until(pilot, lambda: (panel.region.x, panel.region.bottom) == (0, 27))
