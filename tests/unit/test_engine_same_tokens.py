"""Whatever is drafted, an answer is the one that decoding token by token gives."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest
from fakes import (
    FakeClock,
    FakeDrafter,
    FakeSampler,
    FakeTarget,
    collect,
    flat_costs,
    joined,
    make_engine,
    oracle,
    run,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from token_support import in_memory

from edgespec.drafters.context import ContextDrafter
from edgespec.drafters.database import DatabaseDrafter
from edgespec.engine.decoding import Limits
from edgespec.engine.tally import Tally
from edgespec.passes import Part, Proposal
from edgespec.planning.cost import CostModel, CostTable
from edgespec.protocols import Drafter

VOCABULARY = 6
TOKENS = st.integers(0, VOCABULARY - 1)
Guess = Callable[[Sequence[int]], Iterator[Proposal]]


@dataclass(frozen=True)
class Case:
    """One answer to be decoded twice."""

    prompt: list[int]
    num_context: int
    max_tokens: int
    max_rows: int
    order: int
    temperature: float
    penalty: float
    ends: frozenset[int]
    can_roll_back: bool

    def target(self) -> FakeTarget:
        return FakeTarget(
            num_vocab=VOCABULARY,
            num_context=self.num_context,
            max_rows=self.max_rows,
            can_roll_back=self.can_roll_back,
            order=self.order,
        )

    def sampler(self) -> FakeSampler:
        return FakeSampler(self.temperature, seed=5, penalty=self.penalty)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    prompt = draw(st.lists(TOKENS, min_size=1, max_size=20))
    return Case(
        prompt=prompt,
        num_context=len(prompt) + draw(st.integers(1, 40)),
        max_tokens=draw(st.integers(1, 50)),
        max_rows=draw(st.integers(1, 6)),
        order=draw(st.integers(1, 3)),
        temperature=draw(st.sampled_from([0.0, 0.8])),
        penalty=draw(st.sampled_from([0.0, 1.5])),
        ends=draw(st.frozensets(TOKENS, max_size=1)),
        can_roll_back=draw(st.booleans()),
    )


def mostly_right(target: FakeTarget, seed: int) -> Guess:
    """Knows what greedy decoding says and is wrong now and then; its estimates are noise."""
    noise = random.Random(seed)

    def guess(text: Sequence[int]) -> Iterator[Proposal]:
        for proposal in oracle(target)(text):
            wrong = noise.random() < 0.25
            token = noise.randrange(VOCABULARY) if wrong else proposal.token
            yield Proposal(token, noise.choice([0.0, noise.random(), 1.0]))

    return guess


def at_random(_target: FakeTarget, seed: int) -> Guess:
    noise = random.Random(seed)

    def guess(_text: Sequence[int]) -> Iterator[Proposal]:
        while True:
            yield Proposal(noise.randrange(VOCABULARY), noise.random())

    return guess


def always_wrong(target: FakeTarget, _seed: int) -> Guess:
    def guess(text: Sequence[int]) -> Iterator[Proposal]:
        for proposal in oracle(target)(text):
            yield Proposal((proposal.token + 1) % VOCABULARY, 1.0)

    return guess


def periodic(_target: FakeTarget, seed: int) -> Guess:
    return lambda _text: (Proposal((seed + i) % VOCABULARY, 0.9) for i in itertools.count())


def a_few(target: FakeTarget, seed: int) -> Guess:
    return lambda text: itertools.islice(oracle(target)(text), seed % 3)


KINDS = {"mostly right": mostly_right, "random": at_random, "always wrong": always_wrong}
KINDS |= {"periodic": periodic, "a few": a_few}


def decode_plainly(case: Case) -> tuple[list[int], list[int], object]:
    """Tokens, cache and sampler after decoding one token a pass, without the engine."""
    target, sampler = case.target(), case.sampler()
    sampler.begin(case.prompt)
    answer: list[int] = []
    limit = min(case.max_tokens, case.num_context - len(case.prompt))
    for token in case.prompt:
        decode(target, token)
    while True:
        answer.append(sampler.sample(target, 0))
        if len(answer) == limit or answer[-1] in case.ends:
            break
        decode(target, answer[-1])
    return answer, target.cells, sampler.state


def decode(target: FakeTarget, token: int) -> None:
    """A pass over one token."""
    target.score([Part(0, (token,))])
    target.keep(0, ())


def check_same(case: Case, target: FakeTarget, drafter: Drafter, costs: CostModel) -> None:
    sampler = case.sampler()
    tally = Tally(FakeClock())
    limits = Limits(case.max_tokens)
    engine = make_engine(target, drafter, costs, case.ends)
    passes = collect(engine, case.prompt, sampler, limits, tally)
    answer, cells, state = decode_plainly(case)
    assert joined(passes) == answer
    assert target.cells == cells
    assert sampler.state == state
    check_counts(passes, tally)


def check_counts(passes: list[tuple[int, ...]], tally: Tally) -> None:
    stats = tally.stats()
    assert stats.emitted == len(joined(passes))
    assert stats.target_passes == len(passes)
    assert stats.emitted == stats.target_passes + stats.accepted
    assert stats.proposed >= stats.accepted


@settings(max_examples=300)
@given(cases(), st.sampled_from(sorted(KINDS)), st.integers(0, 10**6))
def test_any_drafter_gives_the_plain_answer(case: Case, kind: str, seed: int) -> None:
    target = case.target()
    drafter = FakeDrafter(KINDS[kind](target, seed))
    check_same(case, target, drafter, flat_costs())
    answer = decode_plainly(case)[0]
    if drafter.text:  # it was needed
        assert drafter.text == case.prompt + answer
    assert drafter.num_open == 0


@given(cases())
def test_looking_up_gives_the_plain_answer(case: Case) -> None:
    check_same(case, case.target(), ContextDrafter(), flat_costs())


@given(cases(), st.lists(st.lists(TOKENS, min_size=1, max_size=20), max_size=4))
def test_what_was_recorded_changes_no_answer(case: Case, others: list[list[int]]) -> None:
    """The database drafter, with this very answer and other texts recorded."""
    recorded = in_memory()
    for tokens in [*others, decode_plainly(case)[0], *others]:
        recorded.add(tokens, context=case.prompt)
    check_same(case, case.target(), DatabaseDrafter([recorded.reader(8)]), flat_costs())


@given(
    cases(),
    st.lists(st.floats(1, 50), min_size=1, max_size=8),
    st.integers(1, 8),
    st.sampled_from([0.0, 1.0]),
)
def test_any_cost_gives_the_plain_answer(
    case: Case, costs: list[float], max_rows: int, cost_ms: float
) -> None:
    table = dict(enumerate(costs, start=1))
    target = case.target()
    model = CostModel(CostTable(4, 40, table, table), max_rows)
    check_same(case, target, FakeDrafter(mostly_right(target, 1), cost_ms), model)


@given(cases())
def test_speculation_switched_off_asks_no_drafter(case: Case) -> None:
    target = case.target()
    drafter = FakeDrafter(oracle(target))
    limits = Limits(case.max_tokens, speculate=False)
    engine = make_engine(target, drafter, ends=case.ends)
    passes = collect(engine, case.prompt, case.sampler(), limits)
    answer, cells, _ = decode_plainly(case)
    assert [list(tokens) for tokens in passes] == [[token] for token in answer]
    assert target.cells == cells
    assert drafter.num_pulled == 0
    assert drafter.text == []


@given(cases())
def test_what_is_kept_shows_the_logits_and_hidden_state_of_each_token(case: Case) -> None:
    """Log-probabilities are read there: row by row they must be those of plain decoding."""
    target = case.target()
    engine = make_engine(target, FakeDrafter(mostly_right(target, 3)))
    text = list(case.prompt)

    for kept in run(engine, case.prompt, case.sampler(), Limits(case.max_tokens)):
        for index, token in enumerate(kept.tokens):
            reference = FakeTarget(num_context=200, order=case.order, num_batch=200)
            reference.score([Part(0, tuple(text))])
            assert kept.logits(index).tolist() == reference.logits(0).tolist()
            assert kept.hidden_state(index).tolist() == reference.hidden_state(0).tolist()
            text.append(token)
    assert len(text) > len(case.prompt)


@pytest.mark.parametrize("max_rows", [1, 2, 5])
def test_a_drafter_that_is_right_fills_every_pass(max_rows: int) -> None:
    target = FakeTarget(max_rows=max_rows)
    engine = make_engine(target, FakeDrafter(oracle(target)))
    passes = collect(engine, [1, 2, 3], limits=Limits(1 + 4 * max_rows))
    assert [len(tokens) for tokens in passes] == [1] + [max_rows] * 4


def test_a_full_cache_ends_the_answer() -> None:
    target = FakeTarget(num_context=20, max_rows=6)
    engine = make_engine(target, FakeDrafter(oracle(target)))
    tally = Tally(FakeClock())
    passes = collect(engine, [1] * 7, limits=Limits(1000), tally=tally)
    plain = FakeTarget(num_context=20)
    plain_passes = collect(make_engine(plain), [1] * 7, limits=Limits(1000))
    assert joined(passes) == joined(plain_passes)
    assert len(joined(passes)) == 13
    assert target.cells == plain.cells
    assert len(passes) < len(plain_passes)
