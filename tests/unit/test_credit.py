"""What drafting may lose: the account by itself, and an engine that keeps to it."""

from __future__ import annotations

import doctest
from collections.abc import Iterator, Sequence
from itertools import repeat

import pytest
from fakes import FakeClock, FakeDrafter, FakeSampler, FakeTarget, collect, joined, oracle
from hypothesis import given
from hypothesis import strategies as st

from edgespec.engine import credit as module
from edgespec.engine.cost import CostModel, CostTable
from edgespec.engine.credit import MOST_PASSES, SHARE, Bill, Credit
from edgespec.engine.engine import Engine, Limits
from edgespec.types import Proposal

PLAIN_MS = 30.0
GUESS_MS = 4.0
COSTS = {1: PLAIN_MS, 2: 34.0, 4: 48.0, 8: 76.0}
WRONG = Bill(PLAIN_MS + 4.0, GUESS_MS, speed_without=1 / PLAIN_MS)
"""One guess is asked for, verified and not kept: 8 ms lost."""


def account() -> Credit:
    return Credit(MOST_PASSES * PLAIN_MS)


def settle(credit: Credit, bill: Bill, num_emitted: int = 1) -> None:
    credit.open(bill)
    credit.settle(num_emitted)


def test_the_example_in_the_text_holds() -> None:
    assert doctest.testmod(module).failed == 0


def test_what_costs_nothing_is_always_allowed() -> None:
    credit = account()
    for _ in range(100):
        settle(credit, WRONG)
    assert credit.allows(0.0, 0.0)
    assert not credit.allows(GUESS_MS, 0.0)


def test_one_that_gains_is_always_allowed() -> None:
    credit = account()
    for number in range(300):
        assert credit.allows(GUESS_MS, 0.0)
        settle(credit, WRONG, num_emitted=1 + (number % 3 == 0))  # 8 ms lost twice, 22 gained


def test_one_that_is_always_wrong_loses_its_credit_and_then_the_share() -> None:
    credit, lost, elapsed = account(), 0.0, 0.0
    for _ in range(5000):
        if credit.allows(GUESS_MS, 0.0):
            settle(credit, WRONG)
            lost += 8.0
        else:
            settle(credit, Bill(PLAIN_MS))
        elapsed += PLAIN_MS
    assert lost <= MOST_PASSES * PLAIN_MS + 1.2 * SHARE * elapsed + 8.0
    assert lost >= SHARE * elapsed, "it is tried from time to time"


def test_one_good_draft_pays_for_several_more() -> None:
    credit = account()
    while credit.allows(GUESS_MS, 0.0):
        settle(credit, WRONG)
    while not credit.allows(GUESS_MS, 0.0):
        settle(credit, Bill(PLAIN_MS))
    settle(credit, WRONG, num_emitted=3)
    num_more = 0
    while credit.allows(GUESS_MS, 0.0):
        settle(credit, WRONG)
        num_more += 1
    assert num_more >= 5


def test_reading_is_owed_from_the_next_answer_on() -> None:
    credit = account()
    settle(credit, Bill(PLAIN_MS, 204.0, 200.0, 1 / PLAIN_MS))
    assert credit.allows(GUESS_MS, 0.0), "what is read is read"
    credit.begin()
    assert not credit.allows(GUESS_MS, 0.0)
    for _ in range(400):
        settle(credit, Bill(PLAIN_MS))
    assert credit.allows(GUESS_MS, 0.0), "paid back"


def test_reading_that_was_earned_back_is_forgotten() -> None:
    credit = account()
    settle(credit, Bill(PLAIN_MS, 204.0, 200.0, 1 / PLAIN_MS))
    for _ in range(12):
        settle(credit, WRONG, num_emitted=2)
    credit.begin()
    assert credit.allows(GUESS_MS, 100.0)


@pytest.mark.parametrize("start_ms", [500.0, 1e4])
def test_with_full_credit_any_prompt_may_be_read(start_ms: float) -> None:
    credit = account()
    assert credit.allows(GUESS_MS, start_ms)
    settle(credit, WRONG)
    assert credit.allows(GUESS_MS, 50.0)
    assert not credit.allows(GUESS_MS, start_ms)


def test_a_pass_without_a_bill_changes_nothing() -> None:
    credit = Credit(8.0)
    credit.settle(5)
    settle(credit, WRONG)
    credit.open(WRONG)
    credit.begin()  # it was interrupted
    credit.settle(1)
    assert not credit.allows(GUESS_MS, 0.0)
    settle(credit, Bill(800.0))
    assert credit.allows(8.0, 0.0)


@given(
    st.lists(
        st.tuples(st.floats(0, 500), st.floats(0, 500), st.integers(1, 16), st.booleans()),
        max_size=50,
    )
)
def test_there_is_never_more_than_the_most(passes: list[tuple[float, float, int, bool]]) -> None:
    credit = account()
    for drafting_ms, start_ms, num_emitted, asked in passes:
        speed = 1 / PLAIN_MS if asked else None
        settle(credit, Bill(PLAIN_MS, drafting_ms + start_ms, start_ms, speed), num_emitted)
        credit.begin()
    for _ in range(20):
        settle(credit, WRONG)  # 8 ms each, 0.7 come in
    assert not credit.allows(GUESS_MS, 0.0)


class Slow(FakeDrafter):
    """Guesses rightly or not, at a cost; `clock` is told of it."""

    def __init__(self, target: FakeTarget, clock: FakeClock, *, lies: bool) -> None:
        right = oracle(target)

        def wrong(text: Sequence[int]) -> Iterator[Proposal]:
            truth = next(iter(right(text)))
            return repeat(Proposal((truth.token + 1) % target.num_vocab, 0.9))

        super().__init__(wrong if lies else right, cost_ms=GUESS_MS)
        self._clock = clock

    def propose(self, prefix: Sequence[int] = ()) -> Iterator[Proposal]:
        for proposal in super().propose(prefix):
            self._clock.pass_by(GUESS_MS / 1e3)
            yield proposal


def guesses_for(*, lies: bool, num_tokens: int = 400) -> int:
    """How many guesses an engine asks for in one answer."""
    target = FakeTarget(num_context=1024, max_rows=8)
    clock = FakeClock(tick=0.0)
    drafter = Slow(target, clock, lies=lies)
    costs = CostModel(CostTable(8, 2048, COSTS, COSTS), 8)
    engine = Engine(target, [drafter], costs, clock)
    said = joined(collect(engine, [1, 2, 3], FakeSampler(), Limits(num_tokens)))
    assert len(said) == num_tokens
    return drafter.num_pulled


def test_the_engine_keeps_to_it() -> None:
    most = MOST_PASSES * PLAIN_MS + 1.2 * SHARE * 400 * PLAIN_MS
    assert 3 <= guesses_for(lies=True) <= most / GUESS_MS + 1
    assert guesses_for(lies=False) > 300
