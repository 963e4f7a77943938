"""A start waits for no measurement: the rest is measured, weighed and made while nobody waits."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
from cli_support import PATIENCE_S
from tiny_models import TinySpec, write_tiny_model

from edgespec.forms import search
from edgespec.forms.weighing import OpenDrafter, TokenCosts
from edgespec.paths import Paths
from edgespec.runtime.request import BEST_DRAFTER, LoadRequest
from edgespec.runtime.running import Running, load
from edgespec.types import CompletionRequest, SamplingParams

TARGET = TinySpec(width=128, ffn_width=512, num_layers=4, quantization="Q8_0", repetitive=True)
DRAFTER = TinySpec(num_layers=1, width=64, ffn_width=128, quantization="Q4_1", repetitive=True)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    found = Paths(data=tmp_path, cache=tmp_path / "cache")
    found.models.mkdir()
    write_tiny_model(found.models / "small.gguf", DRAFTER)
    return found


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "target.gguf", TARGET)


@pytest.fixture(autouse=True)
def quick_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Costs are given: a body as Q8_0 is cheapest, and drafting always pays."""

    def costs(drafters: Sequence[OpenDrafter]) -> TokenCosts:
        names = [drafter.model.path.stem for drafter in drafters]
        return TokenCosts(tuple(3.0 if name == "q8_0" else 4.0 for name in names), 1.0)

    monkeypatch.setattr(search, "token_costs", costs)
    monkeypatch.setattr(search, "expected_speed", lambda _readings, ms, _pass: 8.0 / ms)
    monkeypatch.setattr("edgespec.runtime.choice.steady_speed", lambda *_figures: 2.0)


def request(drafter: Path | None = None) -> LoadRequest:
    name = BEST_DRAFTER if drafter is None else "small"
    return LoadRequest(drafter=name, drafter_path=drafter, num_threads=1, learn=False)


def answer(running: Running, *, speculate: bool = True) -> tuple[int, ...]:
    asked = CompletionRequest(
        "Tell me a story.",
        SamplingParams(temperature=0.8, seed=5),
        max_tokens=24,
        speculate=speculate,
    )
    *_, last = running.completer.answer(asked)
    assert last.completion is not None
    return last.completion.token_ids


def trimmed(paths: Paths) -> list[Path]:
    return list(paths.trimmed.glob("*.gguf"))


def test_the_named_drafter_serves_as_shipped_and_is_trimmed_later(
    paths: Paths, target: Path
) -> None:
    lines: list[str] = []
    whole = paths.models / "small.gguf"
    with load(request(whole), target, paths, lines.append) as running:
        assert not [line for line in lines if line.startswith("measuring")]
        assert running.completer.model.drafter.endswith("+small")
        assert running.facts.is_provisional
        plain = answer(running, speculate=False)
        assert trimmed(paths) == []
        assert answer(running) == plain
        assert running.idle.wait(PATIENCE_S)
        assert len(trimmed(paths)) == 1
        assert answer(running) == plain, "the trimmed one drafts from here on"
    told = [line for line in lines if not line.startswith(("loading", "measuring"))]
    assert [line for line in told if not line.startswith("trimming small to ")] == []
    with load(request(whole), target, paths, lines.append) as again:
        assert not again.facts.is_provisional
        assert answer(again) == plain


@pytest.mark.parametrize("is_late", [False, True], ids=["here", "pulled-meanwhile"])
def test_by_itself_a_model_drafts_once_it_was_weighed(
    paths: Paths, target: Path, is_late: bool
) -> None:
    lines: list[str] = []
    small, elsewhere = paths.models / "small.gguf", paths.data / "pulling"
    if is_late:
        small.rename(elsewhere)
    with load(request(), target, paths, lines.append) as running:
        assert running.completer.model.drafter == "context+database+grammar"
        plain = answer(running, speculate=False)
        if is_late:
            assert running.idle.wait(PATIENCE_S)
            elsewhere.rename(small)
            assert answer(running) == plain
        assert running.idle.wait(PATIENCE_S)
        assert len(trimmed(paths)) == 1
        assert answer(running) == plain
    lines.clear()
    with load(request(), target, paths, lines.append) as again:
        assert again.completer.model.drafter == "context+database+grammar+small"
        assert [line for line in lines if line.startswith("measuring")] == []
        assert answer(again) == plain


def test_more_rows_are_proved_while_nobody_waits(
    paths: Paths, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgespec.machine.facts.QUICK_S", 0.0)
    asked = dataclasses.replace(request(), drafter="context")
    with load(asked, target, paths, lambda _line: None) as running:
        engine = running.completer._engine
        assert running.facts.max_rows == engine.target.max_rows == 1
        plain = answer(running)
        assert running.idle.wait(PATIENCE_S)
        assert engine.target.max_rows > 1
        assert answer(running) == plain
    with load(asked, target, paths, lambda _line: None) as again:
        assert again.facts.max_rows == engine.target.max_rows
        assert not again.facts.is_provisional


def test_a_run_that_ends_early_leaves_its_work_to_the_next(paths: Paths, target: Path) -> None:
    for _ in range(3):
        with load(request(), target, paths, lambda _line: None) as running:
            answer(running)
    with load(request(), target, paths, lambda _line: None) as running:
        running.idle.start()
        assert running.idle.wait(PATIENCE_S)
    assert [path.suffix for path in paths.trimmed.iterdir() if path.name != ".lock"] == [".gguf"]


def test_what_passes_taught_of_their_cost_is_kept(paths: Paths, target: Path) -> None:
    asked = dataclasses.replace(request(), drafter="none")
    with load(asked, target, paths, lambda _line: None) as running:
        before = running.facts.table
        running.idle.close()
        costs = running.completer._engine._planner.costs
        for _ in range(200):
            costs.observe(1, 64, 10 * before.short_ms[1])
        learned = costs.pass_ms(1, 64)
    with load(asked, target, paths, lambda _line: None) as again:
        assert again.completer._engine._planner.costs.pass_ms(1, 64) == pytest.approx(
            learned, rel=0.05
        )
