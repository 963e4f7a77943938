"""What drafting may lose: an account by itself, and an engine that keeps to it."""

from __future__ import annotations

import doctest
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest
from fakes import FakeClock, FakeDrafter, FakeSampler, FakeTarget, collect, joined, oracle
from hypothesis import given
from hypothesis import strategies as st

from edgespec.engine.decoding import Limits
from edgespec.engine.engine import Engine
from edgespec.passes import Proposal
from edgespec.planning import budget as module
from edgespec.planning.budget import (
    FIRST_PASSES,
    MOST_PASSES,
    MOST_RESERVE,
    SHARE,
    Account,
    Budgets,
)
from edgespec.planning.cost import CostModel, CostTable
from edgespec.planning.planner import Planner
from edgespec.protocols import FREE, Drafter, Quote

PLAIN_MS = 30.0
GUESS_MS = 4.0
GUESS = Quote(guess_ms=GUESS_MS)
COSTS = {1: PLAIN_MS, 2: 34.0, 4: 48.0, 8: 76.0}
FIRST_MS, MOST_MS = FIRST_PASSES * PLAIN_MS, MOST_PASSES * PLAIN_MS
LONG = 2000
"""Tokens of a limit that is far away."""


def budgets() -> Budgets:
    return Budgets(lambda: PLAIN_MS)


def asked(
    account: Account,
    num_emitted: int = 1,
    *,
    pass_ms: float = PLAIN_MS + 4.0,
    drafting_ms: float = GUESS_MS,
    start_ms: float = 0.0,
) -> None:
    """A pass that the drafter was asked for; as it stands its guess was wrong, and 8 ms lost."""
    total_ms = pass_ms + drafting_ms + start_ms
    account.settle(num_emitted, pass_ms, total_ms, num_emitted, start_ms, 1 / PLAIN_MS)


def plain(account: Account, num_emitted: int = 1, num_passes: int = 1) -> None:
    """Passes without the drafter."""
    for _ in range(num_passes):
        account.settle(num_emitted, PLAIN_MS, PLAIN_MS, num_emitted)


def num_allowed(account: Account) -> int:
    """How many wrong guesses in a row are allowed."""
    count = 0
    while account.allows(GUESS):
        asked(account)
        count += 1
    return count


def test_the_example_in_the_text_holds() -> None:
    assert doctest.testmod(module).failed == 0


def test_what_costs_nothing_is_always_allowed() -> None:
    account = budgets().open("model", LONG)
    for _ in range(100):
        asked(account)
    assert account.allows(FREE)
    assert not account.allows(GUESS)


def test_one_that_gains_is_always_allowed() -> None:
    account = budgets().open("model", LONG)
    for number in range(300):
        assert account.allows(GUESS)
        asked(account, num_emitted=1 + (number % 3 == 0))  # 8 ms lost twice, 22 gained


def test_one_that_is_always_wrong_loses_its_balance_and_then_the_share() -> None:
    account, lost, elapsed = budgets().open("model", 10**6), 0.0, 0.0
    for _ in range(5000):
        if account.allows(GUESS):
            asked(account)
            lost += 8.0
        else:
            plain(account)
        elapsed += PLAIN_MS
    assert lost <= MOST_MS + 1.2 * SHARE * elapsed + 8.0
    assert lost >= SHARE * elapsed, "it is tried from time to time"


def test_one_that_gains_is_hardly_ever_given_up_by_chance() -> None:
    """It loses 12 ms in two passes of five and gains 18 in the others, after reading for 26."""
    num_given_up = 0
    for seed in range(200):
        luck, account = random.Random(seed), budgets().open("model", LONG)
        plain(account, 20)
        for number in range(100):
            if not account.allows(Quote(GUESS_MS, 0.0 if number else 26.0)):
                num_given_up += 1
                break
            is_right = luck.random() < 0.6
            asked(account, 1 + is_right, drafting_ms=8.0, start_ms=0.0 if number else 26.0)
    assert num_given_up <= 6


def test_one_good_draft_pays_for_several_more() -> None:
    account = budgets().open("model", LONG)
    num_allowed(account)
    while not account.allows(GUESS):
        plain(account)
    asked(account, num_emitted=3)
    assert num_allowed(account) >= 5


def test_each_drafter_has_a_budget_over_all_answers() -> None:
    both = budgets()
    one, other = both.open("one", LONG), both.open("other", LONG)
    assert num_allowed(one) >= FIRST_MS / 8.0
    assert not both.open("one", LONG).allows(GUESS)
    assert other.allows(GUESS)
    assert both.open("other", LONG).allows(GUESS)


def one_bad_answer(ours: Budgets) -> int:
    """How many wrong guesses are allowed in an answer of nothing else."""
    return num_allowed(ours.open("model", LONG))


def test_what_was_saved_lets_each_of_several_bad_answers_begin_anew() -> None:
    ours = budgets()
    for _ in range(200):
        asked(ours.open("model", LONG), num_emitted=2)
    counts = [one_bad_answer(ours) for _ in range(40)]
    lost_ms = 8.0 - SHARE * (PLAIN_MS + 4.0)
    assert counts[0] * lost_ms <= MOST_MS + 8.0, "no answer spends more than a balance"
    num_begun = sum(count * 8.0 > FIRST_MS / 2 for count in counts)
    assert num_begun == pytest.approx(1 + MOST_RESERVE / FIRST_PASSES, abs=2)
    assert counts[-1] == 0, "and no more than was put by"


def test_one_that_saved_little_has_little_put_by() -> None:
    ours = budgets()
    for _ in range(8):
        asked(ours.open("model", LONG), num_emitted=2)
    assert [one_bad_answer(ours) > 0 for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize("start_ms", [0.0, 100.0])
def test_a_pass_that_was_disturbed_counts_no_more_than_a_bad_one(start_ms: float) -> None:
    left = []
    for drafting_ms in (GUESS_MS, 1e5):
        ours = budgets()
        earner = ours.open("model", LONG)
        asked(earner, drafting_ms=drafting_ms, start_ms=start_ms)
        num_passes = 0
        later = ours.open("model", LONG)
        while not later.allows(Quote(guess_ms=MOST_MS)):
            plain(later)
            num_passes += 1
        left.append(num_passes * SHARE * PLAIN_MS)
    assert left[0] < left[1] <= left[0] + 2 * (PLAIN_MS + 4.0 + start_ms)


def test_one_that_is_always_slow_was_not_disturbed() -> None:
    """It quotes 4 ms and takes two seconds: what it loses is billed from the second time on."""
    account, lost, elapsed = budgets().open("model", 10**6), 0.0, 0.0
    for _ in range(20_000):
        if account.allows(GUESS):
            asked(account, drafting_ms=2000.0)
            lost += 2004.0
        else:
            plain(account)
        elapsed += PLAIN_MS
    assert lost <= 2 * 2004.0 + MOST_MS + SHARE * elapsed


@dataclass
class Pass:
    """What the clock and the target make of one pass, and the drafter's quote for it."""

    num_emitted: int
    pass_ms: float
    drafting: float  # share of the most that is not taken for a disturbance
    guess_ms: float
    start_ms: float


PASSES = st.builds(
    Pass,
    st.integers(1, 8),
    st.floats(1, 200),
    st.floats(0, 1),
    st.floats(0.1, 50),
    st.just(0.0) | st.floats(0, 500),
)


@given(st.lists(st.lists(PASSES, max_size=30), max_size=8))
def test_no_sequence_of_passes_loses_more_than_the_share(
    answers: list[list[Pass]],
) -> None:
    """Beyond the balance, the share, one pass and what the last answer was read for."""
    ours = budgets()
    lost = elapsed = worst = most_read = 0.0
    for passes in answers:
        account = ours.open("model", LONG)
        read = 0.0
        for each in passes:
            elapsed += each.pass_ms
            if not account.allows(Quote(each.guess_ms, each.start_ms)):
                account.settle(each.num_emitted, each.pass_ms, each.pass_ms, each.num_emitted)
                continue
            plainly_ms = each.num_emitted * PLAIN_MS
            drafting_ms = each.drafting * (each.pass_ms + each.start_ms + plainly_ms)
            asked(
                account,
                each.num_emitted,
                pass_ms=each.pass_ms,
                drafting_ms=drafting_ms,
                start_ms=each.start_ms,
            )
            lost += each.pass_ms + drafting_ms + each.start_ms - plainly_ms
            read += each.start_ms
            worst = max(worst, 2 * (each.pass_ms + each.start_ms))
            most_read = max(most_read, read)
            assert lost <= MOST_MS + SHARE * elapsed + most_read + worst + 1e-6


# Reading


def starts_reading(ours: Budgets, start_ms: float, fertility: float = 1.0, most: int = LONG) -> int:
    """Tokens of an answer when it first pays to read; 1,000 if never."""
    account = ours.open("model", most)
    for count in range(1000):
        if account.allows(Quote(GUESS_MS, start_ms, fertility=fertility)):
            return count
        plain(account)
    return 1000


def test_reading_is_owed_from_the_next_answer_on() -> None:
    ours = budgets()
    account = ours.open("model", LONG)
    asked(account, pass_ms=PLAIN_MS, start_ms=200.0)
    assert account.allows(GUESS), "what is read is read"
    account = ours.open("model", LONG)
    assert not account.allows(GUESS)
    plain(account, num_passes=400)
    assert account.allows(GUESS), "paid back"


def test_reading_that_was_earned_back_is_forgotten() -> None:
    ours = budgets()
    account = ours.open("model", LONG)
    asked(account, pass_ms=PLAIN_MS, start_ms=200.0)
    for _ in range(12):
        asked(account, num_emitted=2)
    assert ours.open("model", LONG).allows(Quote(GUESS_MS, 20.0))


def test_that_reading_pays_does_not_replace_a_balance() -> None:
    ours = budgets()
    num_allowed(ours.open("model", LONG))
    assert not ours.open("model", LONG).allows(GUESS)


def test_the_more_there_is_to_read_the_later_it_is_read() -> None:
    places = [starts_reading(budgets(), start_ms) for start_ms in (0.0, 20.0, 60.0, 200.0, 600.0)]
    assert places == sorted(places)
    assert places[0] == places[1] == 0 < places[2] < places[3] < places[4] == 1000


def test_a_language_that_the_drafter_hardly_knows_is_read_later() -> None:
    places = [starts_reading(budgets(), 60.0, fertility) for fertility in (1.0, 1.2, 2.0)]
    assert places[0] < places[1] < places[2] == 1000


def test_what_all_wait_for_must_promise_as_many_times_as_much() -> None:
    account = budgets().open("model", LONG)
    plain(account, num_passes=60)
    allowed = [account.allows(Quote(GUESS_MS, 60.0), num_answers) for num_answers in range(1, 9)]
    assert allowed == sorted(allowed, reverse=True)
    assert allowed[0] and not allowed[-1]
    assert account.allows(Quote(GUESS_MS, 0.0), 8), "there is nothing to read"


def test_a_limit_to_the_answer_is_heeded() -> None:
    assert starts_reading(budgets(), 60.0, most=20) == 1000
    assert starts_reading(budgets(), 60.0, most=1000) < 20


@pytest.mark.parametrize(("num_said", "pays"), [(100, True), (290, False)])
def test_near_the_limit_nothing_is_read_any_more(num_said: int, pays: bool) -> None:
    ours = budgets()
    later = ours.open("model", 300)
    plain(later, num_passes=num_said)
    assert later.allows(Quote(GUESS_MS, 120.0)) is pays
    taken_over = ours.open("model", 300, num_said)
    assert taken_over.allows(Quote(GUESS_MS, 120.0)) is pays


def test_what_was_read_is_not_weighed_again() -> None:
    ours = budgets()
    account = ours.open("model", 300)
    asked(account)
    plain(account, num_passes=298)
    assert account.allows(Quote(GUESS_MS, 1e6))
    assert not ours.open("model", 300).allows(Quote(GUESS_MS, 1e6)), "another answer"


# An engine


def engine_of(
    target: FakeTarget, clock: FakeClock, is_end: Callable[[int], bool], *drafters: Drafter
) -> Engine:
    """Its passes take what the table says."""
    costs = CostModel(CostTable(8, 8192, COSTS, COSTS), 8)
    prices = costs.curve_ms(0).tolist()
    target.on_pass = lambda tokens: clock.pass_by(prices[len(tokens) - 1] / 1e3)
    return Engine(target, Planner(drafters, costs, clock), is_end, clock)


def slow(
    target: FakeTarget, clock: FakeClock, *, lies: bool, name: str = "fake", ms: float = GUESS_MS
) -> FakeDrafter:
    """Guesses rightly or not, and takes what it quotes."""

    def guess(text: Sequence[int]) -> Iterator[Proposal]:
        for proposal in oracle(target)(text):
            clock.pass_by(ms / 1e3)
            yield Proposal((proposal.token + lies) % target.num_vocab, 0.97 if lies else 0.9)

    return FakeDrafter(guess, cost_ms=ms, name=name)


def guesses_for(*drafters_of: tuple[str, bool, float], num_tokens: int = 400) -> list[int]:
    """How many guesses an engine asks each drafter for in one answer."""
    target, clock = FakeTarget(num_context=1024, max_rows=8), FakeClock(tick=0.0)
    drafters = [slow(target, clock, lies=lies, name=name, ms=ms) for name, lies, ms in drafters_of]
    engine = engine_of(target, clock, lambda _token: False, *drafters)
    said = joined(collect(engine, [1, 2, 3], FakeSampler(), Limits(num_tokens)))
    assert len(said) == num_tokens
    return [drafter.num_pulled for drafter in drafters]


def test_the_engine_keeps_to_it() -> None:
    most = MOST_MS + 1.2 * SHARE * 400 * PLAIN_MS
    [num_lies] = guesses_for(("liar", True, GUESS_MS))
    assert 3 <= num_lies <= most / GUESS_MS + 1
    [num_right] = guesses_for(("knows", False, GUESS_MS))
    assert num_right > 300


@pytest.mark.parametrize(("lying_ms", "right_ms"), [(2.0, 4.0), (4.0, 2.0), (3.0, 3.0)])
@pytest.mark.parametrize("is_first", [True, False])
def test_of_two_drafters_the_one_that_loses_is_left_alone(
    lying_ms: float, right_ms: float, is_first: bool
) -> None:
    liar, knows = ("liar", True, lying_ms), ("knows", False, right_ms)
    both = [liar, knows] if is_first else [knows, liar]
    counts = dict(zip([name for name, *_ in both], guesses_for(*both), strict=True))
    most = MOST_MS + 1.2 * SHARE * 400 * PLAIN_MS
    assert counts["liar"] <= most / lying_ms + 1
    assert counts["knows"] > 250


def reads_in(lengths: Sequence[int], *, lies: bool) -> list[int]:
    """How often a drafter that reads for 80 ms does so, in each of several answers of an engine."""
    target, clock = FakeTarget(num_context=4096, max_rows=8), FakeClock(tick=0.0)
    drafter = slow(target, clock, lies=lies)
    guess, num_read, num_left = drafter.guess, 0, 0

    def reading(text: Sequence[int]) -> Iterator[Proposal]:
        nonlocal num_read
        num_read += drafter.quote.start_ms > 0
        clock.pass_by(drafter.quote.start_ms / 1e3)
        drafter.quote = GUESS
        yield from guess(text)

    def is_last(_token: int) -> bool:
        nonlocal num_left
        num_left -= 1
        return num_left == 0

    drafter.guess = reading
    engine = engine_of(target, clock, is_last, drafter)
    counts = []
    for length in lengths:
        drafter.quote, num_read, num_left = Quote(GUESS_MS, 80.0), 0, length
        said = joined(collect(engine, [1, 2, 3], FakeSampler(), Limits(4000)))
        assert len(said) == length
        counts.append(num_read)
    return counts


def test_short_answers_are_not_read_for_and_long_ones_once_they_are_long() -> None:
    assert reads_in([3, 10, 3, 300, 3], lies=False) == [0, 0, 0, 1, 0]


def test_one_that_is_always_wrong_is_read_for_no_more_than_the_share() -> None:
    right, wrong = (sum(reads_in([120] * 20, lies=lies)) for lies in (False, True))
    assert right == 20
    assert 80.0 * wrong <= FIRST_MS + 1.2 * SHARE * 20 * 120 * PLAIN_MS + 80.0


def test_times_are_the_real_ones_and_not_those_quoted() -> None:
    """Right, and worth what it quotes, but ten times as slow as it says."""
    target, clock = FakeTarget(num_context=1024, max_rows=8), FakeClock(tick=0.0)
    drafter = slow(target, clock, lies=False, ms=10 * GUESS_MS)
    drafter.quote = GUESS
    engine = engine_of(target, clock, lambda _token: False, drafter)
    started = clock()
    collect(engine, [1, 2, 3], FakeSampler(), Limits(400))
    elapsed_ms = (clock() - started) * 1e3
    assert 3 <= drafter.num_pulled < 40
    assert elapsed_ms <= 400 * PLAIN_MS * (1 + 1.2 * SHARE) + 2 * MOST_MS
