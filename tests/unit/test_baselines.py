"""What others do, over a pseudo-model: drafts of a fixed length and simple look-ups."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from fakes import FakeClock, FakeDrafter, FakeTarget, certain, flat_costs, oracle, run, told

from edgespec.drafters.context import ContextDrafter
from edgespec.engine.decoding import Limits
from edgespec.engine.engine import Engine
from edgespec.passes import Kept, Proposal
from edgespec.planning.baselines import Everything, FirstToSpeak, PromptLookup, Unlearning
from edgespec.planning.cost import CostModel, CostTable
from edgespec.planning.planner import Planner, Rule
from edgespec.protocols import Drafter, Quote
from edgespec.types import EncodedPrompt

STEEP = {1: 10.0, 16: 2000.0}
"""T(r) at which no draft pays."""


def answered(
    drafters: Sequence[Drafter], rule: Rule, target: FakeTarget, prompt: Sequence[int] = (1, 2, 3)
) -> list[Kept]:
    """The passes of an answer, its first token left aside, where drafting never pays."""
    costs = CostModel(CostTable(0, 1024, STEEP, STEEP), 16)
    clock = FakeClock()
    engine = Engine(target, Planner(drafters, costs, clock, rule), lambda _token: False, clock)
    return list(run(engine, prompt, limits=Limits(30)))[1:]


def target() -> FakeTarget:
    return FakeTarget(max_rows=16, num_context=200)


@pytest.mark.parametrize("length", [2, 4])
def test_a_fixed_length_is_drafted_whatever_it_costs(length: int) -> None:
    drafter = FakeDrafter(oracle(it := target()), cost_ms=9.0)
    passes = answered([drafter], Rule(Everything, length, has_budgets=False), it)
    assert {len(kept.draft) for kept in passes[:-1]} == {length}
    assert all(len(kept.tokens) == length + 1 for kept in passes[:-1])
    assert {len(kept.draft) for kept in answered([drafter], Rule(), target())} == {0}


def test_wrong_guesses_are_verified_as_well() -> None:
    wrong = FakeDrafter(lambda _text: (Proposal(0, 0.01) for _ in range(9)), cost_ms=9.0)
    passes = answered([wrong], Rule(Everything, 8, has_budgets=False), target())
    assert {len(kept.draft) for kept in passes[:10]} == {8}


def test_of_several_drafters_the_likelier_guess_is_verified() -> None:
    it = target()
    sure, unsure = (
        FakeDrafter(oracle(it), name="sure"),
        FakeDrafter(lambda _text: (Proposal(0, 0.3) for _ in range(9)), name="unsure"),
    )
    passes = answered([unsure, sure], Rule(Everything, 3), it)
    assert {kept.draft.sources for kept in passes[:-1]} == {("sure",) * 3}


def test_without_budgets_only_what_guesses_cost_counts() -> None:
    drafter = FakeDrafter(oracle(target()))
    is_drafted = {}
    for rule in (Rule(), Rule(has_budgets=False)):
        for guess_ms in (0.01, 1e6):
            drafter.quote = Quote(guess_ms, start_ms=1e6)
            it, clock = target(), FakeClock()
            planner = Planner([drafter], flat_costs(), clock, rule)
            engine = Engine(it, planner, lambda _token: False, clock)
            passes = list(run(engine, (1, 2, 3), limits=Limits(9)))
            is_drafted[rule, guess_ms] = any(kept.draft.tokens for kept in passes)
    assert list(is_drafted.values()) == [False, False, True, False]


def proposed(drafter: Drafter, text: Sequence[int], *said: int) -> list[int]:
    """What a drafter says after a text, and after more of it was said."""
    session = drafter.open(EncodedPrompt(tuple(text)))
    if said:
        session.learn(told(said))
    return [guess.token for guess in session.propose()]


def test_prompt_lookup_copies_ten_tokens_from_where_the_last_three_stood_first() -> None:
    lookup = PromptLookup()
    text = (1, 2, 3, *range(10, 25), 1, 2, 3, 99, 1, 2)
    assert proposed(lookup, text, 3) == list(range(10, 20))
    assert proposed(lookup, (*text, 3)) == list(range(10, 20))
    assert proposed(lookup, (1, 2, 3, 9, 2, 3)) == []
    assert proposed(lookup, (7, 7, 7, 7)) == [7]
    assert proposed(lookup, (7,)) == proposed(lookup, ()) == []


def test_in_a_hierarchy_the_first_that_speaks_gives_the_whole_draft() -> None:
    silent, sure = FakeDrafter(name="first"), FakeDrafter(lambda _text: certain((4, 5)), name="b")
    last = FakeDrafter(lambda _text: certain((6,)), name="c")
    session = FirstToSpeak([silent, sure, last]).open(EncodedPrompt((1, 2)))
    assert [(guess.token, guess.source) for guess in session.propose()] == [(4, "b"), (5, "b")]
    session.learn(told((7,)))
    assert (sure.text, last.text) == ([1, 2, 7], [1, 2, 7])
    assert last.num_pulled == 0
    session.close()
    assert silent.num_open == sure.num_open == last.num_open == 0


def test_who_does_not_learn_keeps_its_estimates_and_follows_all_the_same() -> None:
    it, learning, fixed = target(), ContextDrafter(), ContextDrafter()
    first = answered([learning], Rule(Everything, 8), it)
    second = answered([Unlearning(fixed)], Rule(Everything, 8), target())
    before = ContextDrafter().calibration.export()
    assert fixed.calibration.export() == before != learning.calibration.export()
    assert [kept.tokens for kept in first][:2] == [kept.tokens for kept in second][:2]
    assert any(kept.draft.tokens for kept in second)


def test_planners_take_turns_between_answers() -> None:
    it, clock = target(), FakeClock()
    drafted = Planner([FakeDrafter(oracle(it))], flat_costs(), clock)
    engine = Engine(it, plain := Planner([], flat_costs(), clock), lambda _token: False, clock)
    for planner, is_drafted in ((plain, False), (drafted, True), (plain, False)):
        engine.plan_with(planner)
        assert engine.planner is planner
        passes = list(run(engine, (1, 2, 3), limits=Limits(9)))
        assert any(kept.draft.tokens for kept in passes) is is_drafted
