"""What drafting may lose: the account by itself, and an engine that keeps to it."""

from __future__ import annotations

import doctest
from collections.abc import Iterator, Sequence
from itertools import repeat

import pytest
from fakes import FakeClock, FakeDrafter, FakeSampler, FakeTarget, collect, joined, oracle
from hypothesis import given
from hypothesis import strategies as st

from edgespec.engine.decoding import Limits
from edgespec.engine.engine import Engine
from edgespec.engine.tally import Tally
from edgespec.passes import Proposal
from edgespec.planning import credit as module
from edgespec.planning.cost import CostModel, CostTable
from edgespec.planning.credit import MOST_PASSES, SHARE, Bill, Credit
from edgespec.planning.prospect import Prospect

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
    credit.begin(100)
    assert not credit.allows(GUESS_MS, 0.0)
    for _ in range(400):
        settle(credit, Bill(PLAIN_MS))
    assert credit.allows(GUESS_MS, 0.0), "paid back"


def test_reading_that_was_earned_back_is_forgotten() -> None:
    credit = account()
    settle(credit, Bill(PLAIN_MS, 204.0, 200.0, 1 / PLAIN_MS))
    for _ in range(12):
        settle(credit, WRONG, num_emitted=2)
    credit.begin(100)
    assert credit.allows(GUESS_MS, 100.0)


@pytest.mark.parametrize("start_ms", [500.0, 1e4])
def test_without_a_prospect_any_prompt_may_be_read(start_ms: float) -> None:
    credit = account()
    assert credit.allows(GUESS_MS, start_ms)
    while credit.allows(GUESS_MS, start_ms):
        settle(credit, WRONG)
    assert not credit.allows(GUESS_MS, 0.0), "but not without credit for a guess"


def test_with_a_prospect_what_cannot_pay_is_not_read() -> None:
    credit = Credit(MOST_PASSES * PLAIN_MS, Prospect(PLAIN_MS))
    credit.begin(20)
    assert not credit.allows(GUESS_MS, 500.0)
    assert credit.allows(0.0, 500.0), "what costs nothing always may"
    assert credit.allows(GUESS_MS, 0.0)
    credit.begin(2000)
    assert credit.allows(GUESS_MS, 60.0)
    assert not credit.allows(GUESS_MS, 1e6)


def test_a_prospect_alone_does_not_replace_credit() -> None:
    credit = Credit(MOST_PASSES * PLAIN_MS, Prospect(PLAIN_MS))
    credit.begin(2000)
    while credit.allows(GUESS_MS, 0.0):
        settle(credit, WRONG)
    credit.begin(2000)
    assert not credit.allows(GUESS_MS, 0.0)


def test_the_prospect_learns_what_the_account_does() -> None:
    prospect = Prospect(PLAIN_MS)
    credit = Credit(1e6, prospect)
    reading = Bill(PLAIN_MS + 4.0, 104.0, 100.0, 1 / PLAIN_MS)
    for _ in range(5):
        credit.begin(2000)
        settle(credit, reading)
        for _ in range(99):
            settle(credit, WRONG)
        credit.end(ended=True)
    credit.begin(2000)
    assert not credit.allows(GUESS_MS, 60.0), "one that is always wrong is not read"
    for _ in range(60):
        credit.begin(2000)
        settle(credit, Bill(PLAIN_MS), num_emitted=100)
        credit.end(ended=True)
    credit.begin(2000)
    assert credit.allows(GUESS_MS, 60.0), "but tried again in the end"


@pytest.mark.parametrize("start_ms", [0.0, 100.0])
def test_a_pass_that_was_disturbed_counts_no_more_than_a_bad_one(start_ms: float) -> None:
    spent = []
    for drafting_ms in (GUESS_MS + start_ms, 1e5):
        credit = Credit(1e3)
        settle(credit, Bill(PLAIN_MS, drafting_ms, start_ms, 1 / PLAIN_MS))
        credit.begin(100)
        num_more = 0
        while credit.allows(GUESS_MS, 0.0):
            settle(credit, WRONG)
            num_more += 1
        spent.append(num_more)
    assert spent[1] < spent[0] < spent[1] + 3 * (PLAIN_MS + start_ms) / 7.0


def test_a_pass_without_a_bill_changes_nothing() -> None:
    credit = Credit(8.0)
    credit.settle(5)
    settle(credit, WRONG)
    credit.open(WRONG)
    credit.begin(100)  # it was interrupted
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
        credit.begin(100)
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


class Reading(Slow):
    """Reads what was said at a price before its first guess of an answer."""

    def begin(self, prompt: Sequence[int]) -> None:
        super().begin(prompt)
        self.start_ms = 80.0

    def propose(self, prefix: Sequence[int] = ()) -> Iterator[Proposal]:
        self._clock.pass_by(self.start_ms / 1e3)
        self.num_read += self.start_ms > 0
        self.start_ms = 0.0
        yield from super().propose(prefix)

    num_read = 0


def reads_in(lengths: Sequence[int], *, lies: bool) -> list[int]:
    """How often a drafter reads in each of several answers of one engine."""
    target = FakeTarget(num_context=4096, max_rows=8)
    clock = FakeClock(tick=0.0)
    drafter = Reading(target, clock, lies=lies)
    costs = CostModel(CostTable(8, 8192, COSTS, COSTS), 8)
    engine = Engine(target, [drafter], costs, clock, credit=Credit(1e9, Prospect(PLAIN_MS)))
    counts = []
    for length in lengths:
        drafter.num_read = 0
        places = iter(range(1, length + 1))

        def is_last(
            _token: int, _row: int, places: Iterator[int] = places, length: int = length
        ) -> bool:
            return next(places) == length

        limits = Limits(4000)
        said = joined(engine.generate([1, 2, 3], FakeSampler(), limits, is_last, Tally(clock)))
        assert len(said) == length
        counts.append(drafter.num_read)
    return counts


def test_short_answers_are_not_read_for() -> None:
    counts = reads_in([3] * 30, lies=False)
    assert sum(counts[20:]) <= 1


def test_a_long_answer_among_short_ones_is_read_for_once_it_is_long() -> None:
    *_, short, long = reads_in([3] * 20 + [300], lies=False)
    assert (short, long) == (0, 1)


def test_one_that_is_always_wrong_is_hardly_ever_read() -> None:
    right, wrong = (sum(reads_in([120] * 20, lies=lies)) for lies in (False, True))
    assert right == 20
    assert wrong <= 6
