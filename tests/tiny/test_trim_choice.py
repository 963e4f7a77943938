"""Choosing a drafter's form over real llama.cpp: what is read and measured, and what comes of it.

Where a test is about what becomes of costs, the costs are given in place of the measured ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from rigs import SMALL, OpenModel, WriteModel
from tiny_models import TinySpec

from edgespec.errors import UsageError
from edgespec.forms import search as trim_choice
from edgespec.forms.counts import keep_tokens, ranked
from edgespec.forms.search import body_types, choose, rungs_for
from edgespec.forms.trimming import AS_SHIPPED, Decision, Parent, Workshop, make, read_parent
from edgespec.forms.weighing import (
    Heads,
    OpenDrafter,
    Readings,
    TokenCosts,
    TokenText,
    expected_speed,
    read_text,
    token_costs,
    whole_head,
)
from edgespec.gguf.embeddings import EmbeddingTable
from edgespec.gguf.trim import read_trim_info, write_trimmed
from edgespec.llama.context import Context, ContextOptions
from edgespec.llama.model import Model, ModelOptions

SPECS = {
    "llama": SMALL,
    "llama untied": dataclasses.replace(SMALL, tied=False),
    "qwen2 untied": dataclasses.replace(SMALL, architecture="qwen2", tied=False),
    "qwen3": dataclasses.replace(SMALL, architecture="qwen3"),
    "gemma3 spm": dataclasses.replace(SMALL, architecture="gemma3", vocabulary="spm"),
}
Cost = Callable[[OpenDrafter], float]


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path, ModelOptions(), num_threads=1)


def give_costs(
    monkeypatch: pytest.MonkeyPatch, cost: Cost, spread: float = 1.0, rungs: Sequence[int] = ()
) -> None:
    """Have drafters cost what `cost` says, and weigh heads of `rungs` rows."""

    def costs(drafters: Sequence[OpenDrafter]) -> TokenCosts:
        return TokenCosts(tuple(map(cost, drafters)), spread)

    monkeypatch.setattr(trim_choice, "token_costs", costs)
    if rungs:
        monkeypatch.setattr(trim_choice, "LADDER", tuple(rungs))
        monkeypatch.setattr(trim_choice, "USUAL_ROWS", rungs[0])


def give_speeds(monkeypatch: pytest.MonkeyPatch, speed: Callable[[float, float], float]) -> None:
    """Have `speed` tell what the share of hits and the cost of a token are worth."""

    def expected(readings: Sequence[Readings], ms: float, _pass_ms: object) -> float:
        return speed(float(np.concatenate([text.hits for text in readings]).mean()), ms)

    monkeypatch.setattr(trim_choice, "expected_speed", expected)


def best_at(best_ms: float) -> Callable[[float, float], float]:
    """Worth the most at this cost."""
    return lambda _hits, ms: 2 - abs(ms - best_ms)


def own_text(model: Model, count: int) -> TokenText:
    """What a model says greedily after a few tokens, one token a pass."""
    before = [1, 40, 70, 100]
    said = []
    with Context(model, ContextOptions(num_context=256, num_threads=1)) as context:
        context.decode(before, 0)
        for position in range(len(before), len(before) + count):
            said.append(int(context.logits(0).argmax()))
            context.decode(said[-1:], position)
    return TokenText(tuple(before), tuple(said))


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_a_drafter_agrees_with_itself(open_model: OpenModel, spec: TinySpec) -> None:
    model = open_model(spec)
    text = own_text(model, 100)
    with OpenDrafter(model.path, EmbeddingTable(model.path), ModelOptions(), 1) as drafter:
        (readings,) = read_text(drafter, text, whole_head(drafter))
    assert readings.hits.mean() > 0.9, "many rows in a pass are rounded otherwise than one"
    assert readings.sureness.shape == (100,)
    assert ((readings.sureness > 0) & (readings.sureness <= 1)).all()


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_heads_inside_a_head_say_what_trimmed_files_say(
    open_model: OpenModel, tmp_path: Path, spec: TinySpec
) -> None:
    """One reading with all rows tells what a file with fewer rows says, and how sure it is."""
    model = open_model(spec)
    table = EmbeddingTable(model.path)
    text = own_text(model, 60)
    order = np.random.default_rng(0).permutation(spec.num_vocab)
    sizes = (20, 200, 400, spec.num_vocab)
    with OpenDrafter(model.path, table, ModelOptions(), 1) as whole:
        together = read_text(whole, text, Heads(order, sizes))
    for size, readings in zip(sizes, together, strict=True):
        path = tmp_path / f"{size}.gguf"
        write_trimmed(model.path, path, order[:size].astype(np.int32), "")
        with OpenDrafter(path, table, ModelOptions(), 1) as trimmed:
            assert len(trimmed.names) == size
            (alone,) = read_text(trimmed, text, whole_head(trimmed))
        np.testing.assert_array_equal(readings.hits, alone.hits)
        np.testing.assert_allclose(readings.sureness, alone.sureness, rtol=1e-3)
    assert together[-1].hits.mean() > 0.9
    assert together[0].hits.mean() < 0.5


def test_what_a_token_costs_is_measured(open_model: OpenModel) -> None:
    small, large = open_model(SMALL), open_model(dataclasses.replace(SMALL, num_layers=12))
    with (
        OpenDrafter(small.path, EmbeddingTable(small.path), ModelOptions(), 1) as one,
        OpenDrafter(large.path, EmbeddingTable(large.path), ModelOptions(), 1) as two,
    ):
        costs = token_costs([one, two])
        assert min(costs.ms) > 0
        assert costs.spread >= 1
        one.read([5], 128)
        assert 0 <= one.likeliest(0) < SMALL.num_vocab


def test_the_parent_is_read(write_model: WriteModel, shop: Workshop) -> None:
    parent = read_parent(write_model(SMALL), shop)
    assert parent.num_tokens == SMALL.num_vocab
    assert len(set(parent.always)) > 256
    assert parent.counts.counts.sum() > 100_000
    assert len(parent.texts) == 16
    assert "answers of qwen2.5-coder-1.5b" in parent.counts.origin


def test_nothing_is_measured_where_nothing_is_open(
    write_model: WriteModel, shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = read_parent(write_model(SMALL), shop)
    monkeypatch.delattr(trim_choice, "token_costs")
    assert choose(parent, shop, 300, "q4_0") == Decision(300, "q4_0")
    with pytest.raises(UsageError, match="cannot keep 513 tokens: the vocabulary has 512"):
        choose(parent, shop, 513)
    with pytest.raises(UsageError, match=r"cannot keep 7 tokens: .* are needed"):
        choose(parent, shop, 7, AS_SHIPPED)
    with pytest.raises(UsageError, match="there is no type 'q3_x'"):
        choose(parent, shop, None, "q3_x")
    assert list(shop.scratch.iterdir()) == []


def test_a_form_is_chosen_and_made(
    write_model: WriteModel, shop: Workshop, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Everything real: costs and readings decide, whichever way on a machine as busy as this."""
    lines: list[str] = []
    shop = dataclasses.replace(shop, report=lines.append)
    parent = read_parent(write_model(dataclasses.replace(SMALL, quantization="Q4_1")), shop)
    choice = choose(parent, shop)
    assert choice.num_kept == SMALL.num_vocab
    assert choice.type_name in (AS_SHIPPED, "q8_0", "q4_m", "q4_0")
    if choice.is_sure:
        assert [tried.type_name for tried in choice.tried] == [
            AS_SHIPPED,
            "q8_0",
            "q4_m",
            "q4_0",
        ]
        assert min(tried.token_ms for tried in choice.tried) > 0
    assert lines
    assert all(line.startswith("measuring ") for line in lines)
    destination = tmp_path_factory.mktemp("made") / "made.gguf"
    make(parent, choice, destination, shop)
    assert list(shop.scratch.iterdir()) == []
    info = read_trim_info(destination)
    assert info is not None
    assert info.num_kept == choice.num_kept


def test_the_head_that_promises_most_is_kept(
    write_model: WriteModel, shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = read_parent(write_model(SMALL), shop)
    rungs = (300, 350, 400, 450)
    give_costs(monkeypatch, lambda drafter: len(drafter.names) / 100, rungs=rungs)
    assert rungs_for(parent) == rungs
    for best in rungs:
        give_speeds(monkeypatch, best_at(best / 100))
        choice = choose(parent, shop, None, AS_SHIPPED)
        assert (choice.num_kept, choice.type_name, choice.is_sure) == (best, AS_SHIPPED, True)
        assert [tried.num_kept for tried in choice.tried] == list(rungs)
        assert [tried.token_ms for tried in choice.tried] == pytest.approx([3, 3.5, 4, 4.5])
    # Of heads that are as good but for half a percent the longest is kept.
    give_speeds(monkeypatch, lambda _hits, ms: 2 - 0.009 * (ms > 3.2) - (ms > 4.2))
    assert choose(parent, shop, None, AS_SHIPPED).num_kept == 400
    give_speeds(monkeypatch, lambda _hits, _ms: 1.0)
    assert choose(parent, shop, None, AS_SHIPPED).num_kept == rungs[0]
    assert list(shop.scratch.iterdir()) == []


def test_short_heads_agree_less(
    open_model: OpenModel, shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = open_model(SMALL)
    said = read_parent(model.path, shop)
    parent = dataclasses.replace(said, texts=(own_text(model, 80),))
    rungs = (300, 400, 450)
    give_costs(monkeypatch, lambda _drafter: 1.0, rungs=rungs)
    choice = choose(parent, shop, None, AS_SHIPPED)
    agreements = [tried.agreement for tried in choice.tried]
    kept = [set(keep_tokens(said.counts, rung, said.always).tolist()) for rung in rungs]
    shares = [np.mean([token in of for token in parent.texts[0].answer]) for of in kept]
    assert agreements == pytest.approx(shares, abs=0.05)
    assert set(ranked(said.counts, said.always)[:300].tolist()) == kept[0]


@pytest.mark.parametrize(
    ("factors", "chosen"),
    [
        ({"q8_0": 0.5, "q4_m": 0.6, "q4_0": 0.9}, "q8_0"),
        ({"q8_0": 0.9, "q4_m": 0.5, "q4_0": 0.499}, "q4_m"),
        ({"q8_0": 0.9, "q4_m": 0.6, "q4_0": 0.5}, "q4_0"),
        ({"q8_0": 1.1, "q4_m": 1.0, "q4_0": 1.2}, AS_SHIPPED),
        ({"q8_0": 0.995, "q4_m": 0.996, "q4_0": 0.994}, AS_SHIPPED),
    ],
)
def test_the_type_that_promises_most_is_taken(
    write_model: WriteModel,
    shop: Workshop,
    monkeypatch: pytest.MonkeyPatch,
    factors: dict[str, float],
    chosen: str,
) -> None:
    parent = read_parent(write_model(dataclasses.replace(SMALL, quantization="Q4_1")), shop)

    def cost(drafter: OpenDrafter) -> float:
        return 4.0 * factors.get(drafter.model.path.stem, 1.0)

    give_costs(monkeypatch, cost)
    give_speeds(monkeypatch, lambda _hits, ms: 8.0 / ms)
    choice = choose(parent, shop, 400)
    assert (choice.num_kept, choice.type_name) == (400, chosen)
    by_type = {tried.type_name: tried for tried in choice.tried}
    assert by_type["q8_0"].agreement == by_type[AS_SHIPPED].agreement
    better = 1.0
    for kind in ("q8_0", "q4_m", "q4_0"):
        may_win = factors[kind] * 1.01 < better
        assert (by_type[kind].agreement is not None) == (may_win or kind == "q8_0")
        better = factors[kind] if may_win else better


def test_a_body_is_not_re_typed_to_what_it_is(
    write_model: WriteModel, shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_model(SMALL)
    assert body_types(path) == {"q8_0"}
    give_costs(monkeypatch, lambda _drafter: 1.0)
    choice = choose(read_parent(path, shop), shop, 400)
    assert [tried.type_name for tried in choice.tried] == [AS_SHIPPED, "q4_m", "q4_0"]


@pytest.mark.parametrize(("own", "chosen"), [("Q4_1", "q8_0"), ("Q8_0", AS_SHIPPED)])
def test_a_busy_machine_gets_what_is_rarely_wrong(
    write_model: WriteModel,
    shop: Workshop,
    monkeypatch: pytest.MonkeyPatch,
    own: Literal["Q4_1", "Q8_0"],
    chosen: str,
) -> None:
    parent = read_parent(write_model(dataclasses.replace(SMALL, quantization=own)), shop)
    give_costs(monkeypatch, lambda _drafter: 1.0, spread=2.0, rungs=(300, 350, 400))
    expected = Decision(300, chosen, (), is_sure=False)
    assert choose(parent, shop) == expected
    assert choose(parent, shop, None, "q4_0") == dataclasses.replace(expected, type_name="q4_0")
    assert choose(parent, shop, 444) == dataclasses.replace(expected, num_kept=444)


def test_a_slow_reader_reads_fewer_samples(
    write_model: WriteModel, shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = read_parent(write_model(SMALL), shop)
    monkeypatch.setattr(trim_choice, "_READING_S", 0.0)
    give_costs(monkeypatch, lambda _drafter: 1.0)
    read: list[int] = []

    def speed(readings: Sequence[Readings], ms: float, pass_ms: dict[int, float]) -> float:
        read.append(len(readings))
        return expected_speed(readings, ms, pass_ms)

    monkeypatch.setattr(trim_choice, "expected_speed", speed)
    choose(parent, shop, 400)
    assert set(read) == {4}


def test_small_vocabularies_are_kept_whole(parent_of_size: Callable[[int], Parent]) -> None:
    assert rungs_for(parent_of_size(512)) == (512,)
    assert rungs_for(parent_of_size(49_152)) == (
        8192,
        12_288,
        16_384,
        24_576,
        32_768,
        49_152,
    )
    assert rungs_for(parent_of_size(262_144))[-1] == 65_536


@pytest.fixture
def parent_of_size(write_model: WriteModel, shop: Workshop) -> Callable[[int], Parent]:
    parent = read_parent(write_model(SMALL), shop)
    return lambda size: dataclasses.replace(parent, num_tokens=size)
