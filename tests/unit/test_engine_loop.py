"""What the loop asks of its parts: drafter, target, costs."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from fakes import (
    FakeClock,
    FakeDrafter,
    FakeTarget,
    certain,
    collect,
    flat_costs,
    joined,
    make_engine,
    oracle,
    run,
)

from edgespec.engine.decoding import Limits
from edgespec.engine.engine import Engine
from edgespec.engine.tally import Tally
from edgespec.errors import UsageError
from edgespec.passes import Proposal
from edgespec.planning.cost import CostModel, CostTable
from edgespec.planning.planner import Planner
from edgespec.protocols import Quote
from edgespec.types import TARGET, DrafterCounts, DrafterInsight, PrefillProgress


def test_an_empty_prompt_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="the prompt is empty"):
        collect(make_engine(FakeTarget()), [])


def test_the_drafter_is_told_all_that_was_kept() -> None:
    target = FakeTarget(max_rows=4)
    drafter = FakeDrafter(lambda _text: certain([0, 1, 2]))
    passes = collect(make_engine(target, drafter), [1, 2, 3])
    assert drafter.text == [1, 2, 3, *joined(passes)]
    # Nothing was drafted before the first token, nor where only one more was allowed.
    assert [kept for _, kept in drafter.learned] == passes[1:-1]
    assert drafter.num_open == 0


def test_what_was_pulled_is_learned_from_even_unverified() -> None:
    """Where no draft pays, the free first guess still meets the target's next token."""
    target = FakeTarget(max_rows=4)
    drafter = FakeDrafter(oracle(target))
    dear = CostModel(CostTable(1, 2, {1: 1.0, 4: 400.0}, {1: 1.0, 4: 400.0}), 4)
    passes = collect(make_engine(target, drafter, dear), [1, 2, 3], limits=Limits(9))
    assert all(len(tokens) == 1 for tokens in passes)
    assert {len(proposals) for proposals, _ in drafter.learned[1:-1]} == {1}
    for proposals, kept in drafter.learned[1:-1]:
        assert proposals[0].token == kept[0]


def test_a_drafter_whose_tokens_cost_too_much_is_left_alone() -> None:
    target = FakeTarget(max_rows=4)
    drafter = FakeDrafter(oracle(target), cost_ms=100.0)
    collect(make_engine(target, drafter), [1, 2, 3])
    assert drafter.num_pulled == 0


def test_hopeless_guesses_are_not_verified() -> None:
    target = FakeTarget(max_rows=4)
    drafter = FakeDrafter(lambda _text: iter([Proposal(0, 0.01)] * 9))
    collect(make_engine(target, drafter), [1, 2, 3])
    assert {len(rows) for rows in target.passes[1:]} == {1}, "but for the prompt"


@pytest.mark.parametrize(("target_rows", "cost_rows"), [(3, 8), (8, 3)])
def test_a_pass_keeps_to_both_bounds(target_rows: int, cost_rows: int) -> None:
    target = FakeTarget(max_rows=target_rows)
    engine = make_engine(target, FakeDrafter(oracle(target)), flat_costs(cost_rows))
    collect(engine, [1, 2, 3], limits=Limits(20))
    assert max(len(rows) for rows in target.passes) == 3


def test_nothing_is_drafted_beyond_the_last_token() -> None:
    target = FakeTarget(max_rows=8)
    drafter = FakeDrafter(oracle(target))
    passes = collect(make_engine(target, drafter), [1, 2, 3], limits=Limits(4))
    assert [len(tokens) for tokens in passes] == [1, 3]
    assert [len(rows) for rows in target.passes] == [3, 3], "the prompt, then one pass"


def test_a_target_that_cannot_roll_back_is_given_no_drafts() -> None:
    target = FakeTarget(max_rows=4, can_roll_back=False)
    drafter = FakeDrafter(oracle(target))
    passes = collect(make_engine(target, drafter), [1, 2, 3])
    assert {len(rows) for rows in target.passes[1:]} == {1}, "but for the prompt"
    assert joined(passes) == joined(collect(make_engine(FakeTarget()), [1, 2, 3]))


def test_pass_times_are_observed() -> None:
    """The clock of the fakes ticks once a look, so that every pass takes 1 ms."""
    target = FakeTarget(max_rows=1, num_context=600)
    costs = flat_costs(one_ms=10.0)
    assert costs.pass_ms(1, 0) == pytest.approx(10.0)
    collect(make_engine(target, costs=costs), [1, 2, 3], limits=Limits(300))
    assert costs.pass_ms(1, 0) == pytest.approx(1.0, rel=0.1)


def test_an_insight_tells_costs_at_the_present_context_and_what_drafters_gave() -> None:
    target = FakeTarget(num_context=600, max_rows=2)
    costs = CostModel(CostTable(100, 500, {1: 10.0, 2: 11.0}, {1: 50.0, 2: 51.0}), 4)
    drafter = FakeDrafter(oracle(target))
    drafter.quote = Quote(0.5, guess_bytes=700)
    engine = make_engine(target, drafter, costs, clock=lambda: 0.0)
    assert engine.insight().drafters == (DrafterInsight("fake", DrafterCounts()),)
    collect(engine, (1,) * 298, limits=Limits(6))
    insight = engine.insight()
    assert insight.context == 302
    assert insight.pass_ms == {1: pytest.approx(30.2), 2: pytest.approx(31.2)}
    assert insight.plain_token_ms == insight.pass_ms[1]
    [told] = insight.drafters
    assert (told.name, told.counts, told.guess_ms) == ("fake", DrafterCounts(2, 2), 0.5)
    assert told.guess_bytes == 700
    assert told.balance_ms is not None


def test_each_token_tells_where_it_came_from() -> None:
    target = FakeTarget(max_rows=4)
    known, other = FakeDrafter(oracle(target), name="known"), FakeDrafter(name="other")
    planner = Planner([other, known], flat_costs(), FakeClock())
    engine = Engine(target, planner, lambda _token: False, FakeClock())
    kept = list(run(engine, [1, 2, 3], limits=Limits(1 + 4 * 3)))
    assert [each.sources for each in kept] == [(TARGET,), *[("known",) * 3 + (TARGET,)] * 3]
    assert [each.rows for each in kept] == [(0,), *[(0, 1, 2, 3)] * 3]
    assert [dict(each.proposed) for each in kept] == [{}, *[{"known": 3}] * 3]


def test_a_part_of_a_drafter_is_told_apart_and_counts_as_the_drafter() -> None:
    target, tally = FakeTarget(max_rows=2), Tally(FakeClock())
    guess = oracle(target)
    drafter = FakeDrafter(lambda text: (replace(each, source="fake/part") for each in guess(text)))
    engine = make_engine(target, drafter)
    for kept in run(engine, [1, 2, 3], limits=Limits(5)):
        tally.take(kept)
        assert set(kept.sources) <= {"fake/part", TARGET}
    counts = DrafterCounts(2, 2)
    assert dict(tally.stats().by_drafter) == {"fake": counts}
    assert [each.counts for each in engine.insight().drafters] == [counts]


def test_the_record_of_a_pass_tells_its_rows_and_times() -> None:
    """The clock ticks once a look, 1 ms: twice for a pass, twice for each guess that is pulled.

    So a plan of three guesses takes 7 ms, of which 3 are the drafter's.
    """
    target = FakeTarget(max_rows=4, num_context=200)
    engine = make_engine(target, FakeDrafter(oracle(target), cost_ms=0.5))
    *_, read, drafted = itertools.islice(run(engine, [1] * 20), 4)
    assert (read.record.num_rows, read.record.context) == (4, 16)
    assert read.progress == PrefillProgress(20, 20, 0)
    record = drafted.record
    assert (record.num_rows, record.num_pass_rows, record.context) == (4, 4, 20)
    assert record.target_ms == pytest.approx(1.0)
    assert record.predicted_ms == pytest.approx(10.3)
    assert record.drafter_ms == pytest.approx({"fake": 3.0})
    assert (record.plan_ms, record.verify_ms) == pytest.approx((4.0, 1.0))


def test_reading_a_long_prompt_tells_how_far_it_is() -> None:
    engine = make_engine(FakeTarget(num_context=200))
    collect(engine, [1] * 5, limits=Limits(1))
    kept = list(run(engine, [1] * 30, limits=Limits(1)))
    progress = [each.progress.num_read for each in kept if each.progress is not None]
    assert progress == [13, 21, 29, 30]
    assert [len(each.tokens) for each in kept] == [0, 0, 0, 1]
