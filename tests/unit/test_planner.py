"""The planner against brute force, how little it pulls, and how it shares a pass."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from fakes import FakeClock, best_length, told
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgespec.drafters.grammar import GrammarDrafter
from edgespec.passes import EMPTY_DRAFT, Kept, Proposal
from edgespec.planning.cost import CostModel, CostTable
from edgespec.planning.growth import MIN_GAIN
from edgespec.planning.planner import Plan, Planner, Want
from edgespec.protocols import Matcher, Quote
from edgespec.types import EncodedPrompt

SHARES = st.floats(0, 1) | st.sampled_from([0.0, 0.5, 1.0])
MILLISECONDS = st.floats(0.1, 100)
# Neither smooth nor rising: four rows may well be cheaper than three.
CURVES = st.lists(MILLISECONDS, min_size=1, max_size=10)
STEPS = [53.0, 87.0, 91.0, 95.0, 103.0, 111.0, 118.0, 125.0]  # 1.5B Q4_K_M on an AMX build
PROMPT = EncodedPrompt((1, 2, 3))
FAR_AWAY = 10**6
"""A limit of tokens that plays no part."""


class Source:
    """A drafter and its session: proposes tokens 100, 101, ... with the given estimates.

    It counts what is pulled. After a prefix it goes on only if that is what it would have said
    itself, or says so from `rejoins` on.
    """

    bridge_ms = 0.0

    def __init__(
        self,
        acceptance: Sequence[float],
        cost_ms: float = 0.0,
        *,
        name: str = "s",
        expected: float = 1.0,
        first_token: int = 100,
        rejoins: int | None = None,
    ) -> None:
        self.name = name
        self.quote = Quote(cost_ms, expected=expected)
        self.num_pulled = self.num_asked = 0
        self._acceptance, self._first, self._rejoins = acceptance, first_token, rejoins

    def open(
        self, prompt: EncodedPrompt, said: Sequence[int] = (), _matcher: Matcher | None = None
    ) -> Source:
        return self

    def propose(self, prefix: Sequence[int] = ()) -> Iterator[Proposal]:
        self.num_asked += 1
        own = list(range(self._first, self._first + len(prefix)))
        if list(prefix) != own and (self._rejoins is None or len(prefix) < self._rejoins):
            return
        for index, share in enumerate(self._acceptance[len(prefix) :], len(prefix)):
            self.num_pulled += 1
            yield Proposal(self._first + index, share)

    def learn(self, kept: Kept) -> None:
        """Nothing to learn."""

    def close(self) -> None:
        """Nothing to let go of."""


def cost_model(costs: Sequence[float]) -> CostModel:
    """T(1), T(2), ... as they stand, at any context."""
    table = dict(enumerate(costs, 1))
    return CostModel(CostTable(0, 1, table, table), len(costs))


def plan(sources: Sequence[Source], costs: Sequence[float]) -> Plan:
    """The plan for an answer of which one token is to be scored."""
    ours = Planner(sources, cost_model(costs), lambda: 1.0)
    want = Want(ours.open(PROMPT, (), FAR_AWAY), context=0, max_draft=FAR_AWAY)
    [chosen] = ours.plan([want], len(costs))
    return chosen


def pulled(chosen: Plan, name: str = "s") -> list[list[int]]:
    """Tokens of each run of guesses that a drafter was asked for."""
    runs = chosen.guesses.get(name, ())
    return [[guess.token for guess in run.proposals] for run in runs]


def speed(
    acceptance: Sequence[float], length: int, costs: Sequence[float], cost_ms: float
) -> float:
    """Expected tokens per millisecond of drafting and verifying the first `length` guesses."""
    kept = itertools.accumulate(acceptance[:length], lambda a, b: a * b)
    expected: float = 1 + sum(kept)
    return expected / (length * cost_ms + costs[length])


def best_speed(acceptance: Sequence[float], costs: Sequence[float], cost_ms: float) -> float:
    longest = min(len(acceptance), len(costs) - 1)
    return max(speed(acceptance, k, costs, cost_ms) for k in range(longest + 1))


@given(st.lists(SHARES, max_size=10), CURVES)
def test_a_free_draft_is_as_good_as_the_best_of_all_lengths(
    acceptance: list[float], costs: list[float]
) -> None:
    length = best_length(acceptance, costs)
    best = best_speed(acceptance, costs, 0.0)
    plain = 1 / costs[0]
    if length == 0:
        assert best <= plain * MIN_GAIN * (1 + 1e-12)
    else:
        assert speed(acceptance, length, costs, 0.0) == pytest.approx(best, rel=1e-12)
        assert best > plain * MIN_GAIN * (1 - 1e-12)


@given(st.lists(SHARES, max_size=10), CURVES, st.floats(0.01, 50))
def test_a_costly_draft_is_as_good_as_the_best_of_all_lengths(
    acceptance: list[float], costs: list[float], cost_ms: float
) -> None:
    chosen = plan([Source(acceptance, cost_ms)], costs)
    best = best_speed(acceptance, costs, cost_ms)
    if len(chosen.draft) == 0:
        assert best <= MIN_GAIN / costs[0] * (1 + 1e-12)
    else:
        mine = speed(acceptance, len(chosen.draft), costs, cost_ms)
        assert mine == pytest.approx(best, rel=1e-12)


@given(st.lists(SHARES, max_size=10), CURVES, st.floats(0, 5))
def test_the_draft_is_the_head_of_what_was_pulled(
    acceptance: list[float], costs: list[float], cost_ms: float
) -> None:
    source = Source(acceptance, cost_ms, name="mine")
    chosen = plan([source], costs)
    length = len(chosen.draft)
    assert length <= len(costs) - 1
    assert chosen.draft.is_chain
    assert chosen.draft.tokens == tuple(range(100, 100 + length))
    assert chosen.draft.acceptance == tuple(acceptance[:length])
    assert chosen.draft.sources == ("mine",) * length
    assert [token for run in pulled(chosen, "mine") for token in run] == list(
        range(100, 100 + source.num_pulled)
    )
    assert length <= source.num_pulled <= len(costs) - 1


@given(CURVES, SHARES, st.floats(0, 5))
def test_an_endless_source_is_pulled_no_further_than_the_curve(
    costs: list[float], share: float, cost_ms: float
) -> None:
    endless = Source([share] * 100, cost_ms)
    plan([endless], costs)
    assert endless.num_pulled <= len(costs) - 1


@given(st.lists(SHARES, max_size=10), CURVES, st.sampled_from([0.25, 0.5, 2.0, 4.0]))
def test_a_machine_that_is_slower_in_all_plans_the_same(
    acceptance: list[float], costs: list[float], factor: float
) -> None:
    slower = [factor * cost for cost in costs]  # exactly, so that ties stay ties
    assert best_length(acceptance, slower) == best_length(acceptance, costs)


def test_a_source_that_cannot_pay_is_not_pulled() -> None:
    source = Source([1.0] * 8, cost_ms=5.0)
    chosen = plan([source], [10.0, 40.0, 60.0, 80.0])
    assert source.num_pulled == 0
    assert len(chosen.draft) == 0


def test_a_free_source_that_cannot_pay_is_asked_once_to_be_judged() -> None:
    source = Source([1.0] * 8)
    chosen = plan([source], [10.0, 40.0, 60.0, 80.0])
    assert source.num_pulled == 1
    assert len(chosen.draft) == 0
    assert pulled(chosen) == [[100]]


def test_pulling_goes_on_while_a_longer_draft_may_still_pay() -> None:
    # Two and three rows never pay on this curve; eight of them would.
    curve = [10.0, 31.0, 32.0, 33.0, 34.0, 35.0, 36.0, 37.0]
    hopeful = Source([1.0] * 7)
    assert len(plan([hopeful], curve).draft) == 7
    hopeless = Source([0.3] * 7)
    assert len(plan([hopeless], curve).draft) == 0
    assert hopeless.num_pulled == 1


def test_pulling_stops_where_a_guess_ends_all_hope() -> None:
    source = Source([0.95, 0.95, 0.01, 1.0, 1.0, 1.0, 1.0])
    chosen = plan([source], STEPS)
    assert source.num_pulled == 3
    assert len(chosen.draft) == 2


def test_drafting_costs_what_it_costs() -> None:
    acceptance = [0.9] * 7
    lengths = [
        len(plan([Source(acceptance, cost_ms)], STEPS).draft) for cost_ms in (0.0, 3.0, 7.0, 40.0)
    ]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] == 7
    assert lengths[-1] == 0


@pytest.mark.parametrize(("gain", "length"), [(MIN_GAIN - 0.001, 0), (MIN_GAIN + 0.001, 1)])
def test_a_small_promise_is_not_taken(gain: float, length: int) -> None:
    assert best_length([1.0], [10.0, 20.0 / gain]) == length


def test_four_rows_may_be_cheaper_than_three() -> None:
    curve = [84.0, 103.0, 125.0, 94.0]  # 1.5B Q4_0 on an AVX-512 build
    assert best_length([0.5, 0.1, 0.1], curve) == 3
    assert best_length([0.5, 0.1], curve) == 1


@pytest.mark.parametrize("sources", [[], [Source([])]])
def test_without_guesses_the_plan_is_empty(sources: list[Source]) -> None:
    chosen = plan(sources, STEPS)
    assert chosen.draft == EMPTY_DRAFT
    assert not chosen.guesses
    assert chosen.predicted_ms == STEPS[0]


def test_the_plan_tells_what_the_pass_should_take() -> None:
    assert plan([Source([1.0, 1.0])], STEPS).predicted_ms == STEPS[2]


FLAT = [30.0, 33.0, 36.0, 40.0, 44.0, 48.0, 52.0, 56.0]  # 1.5B Q4_K_M with EdgeSpec's row kernel


def test_a_look_up_that_is_as_sure_spares_the_costly_drafter() -> None:
    free = Source([0.9] * 7, name="context")
    costly = Source([0.99] * 7, 4.0, name="model", expected=0.8, first_token=200)
    chosen = plan([costly, free], FLAT)
    assert set(chosen.draft.sources) == {"context"}
    assert costly.num_pulled == 0


def test_a_doubtful_look_up_gives_way_to_the_costly_drafter() -> None:
    free = Source([0.1] * 7, name="context")
    costly = Source([0.9] * 7, 4.0, name="model", expected=0.8, first_token=200)
    chosen = plan([free, costly], FLAT)
    assert chosen.draft.tokens[0] == 200
    assert set(chosen.draft.sources) == {"model"}


def test_the_likelier_guess_is_taken_whoever_was_expected_to_make_it() -> None:
    free = Source([0.5] * 7, name="context")
    costly = Source([0.2] * 7, 4.0, name="model", expected=0.9, first_token=200)
    chosen = plan([free, costly], FLAT)
    assert costly.num_pulled == 1
    assert chosen.draft.sources[0] == "context"


def test_a_look_up_takes_over_within_a_draft() -> None:
    """The model writes two tokens, then what it writes is found in the text."""
    free = Source([0.95] * 7, name="context", rejoins=2)
    costly = Source([0.9, 0.9, 0.3, 0.3, 0.3, 0.3, 0.3], 4.0, name="model", expected=0.8)
    costly._first = 200
    free.propose = _silent_at_first(free)  # type: ignore[method-assign]
    chosen = plan([free, costly], FLAT)
    assert chosen.draft.tokens == (200, 201, 102, 103, 104, 105, 106)
    assert chosen.draft.sources == ("model",) * 2 + ("context",) * 5
    assert [run.start for run in chosen.guesses["context"]] == [2]


def test_the_costly_drafter_goes_on_where_the_look_up_ends() -> None:
    free = Source([0.95] * 3, name="context")
    costly = Source([0.9] * 7, 1.0, name="model", expected=0.8, first_token=200, rejoins=3)
    chosen = plan([free, costly], FLAT)
    assert chosen.draft.tokens[:4] == (100, 101, 102, 203)
    assert chosen.draft.sources[:4] == ("context",) * 3 + ("model",)


def test_a_drafter_of_which_nothing_is_expected_is_not_asked() -> None:
    hopeless = Source([1.0] * 7, 4.0, expected=0.05)
    assert plan([hopeless], FLAT).draft == EMPTY_DRAFT
    assert hopeless.num_asked == 0


@given(st.lists(SHARES, max_size=8), st.lists(SHARES, max_size=8), CURVES)
def test_a_second_look_up_never_makes_the_plan_worse(
    first: list[float], second: list[float], costs: list[float]
) -> None:
    """Both say the same tokens, so at each place the surer estimate counts."""
    both = [Source(first, name="a"), Source(second, name="b")]
    chosen = plan(both, costs).draft
    surest = [max(pair) for pair in itertools.zip_longest(first, second, fillvalue=0.0)]
    assert chosen.acceptance == tuple(surest[: len(chosen)])
    assert len(chosen) == best_length(surest, costs)


def _silent_at_first(source: Source) -> Callable[..., Iterator[Proposal]]:
    speak = source.propose
    return lambda prefix=(): speak(prefix) if len(prefix) >= 2 else iter(())


class Evens:
    """Implements `Matcher`: even tokens may follow, and 100 alone at first."""

    def forced(self, tokens: Sequence[int] = ()) -> int | None:
        return None if tokens else 100

    def takes(self, tokens: Sequence[int], token: int) -> bool:
        return token % 2 == 0 and (bool(tokens) or token == 100)

    def allowed(self) -> NDArray[np.intp]:
        raise NotImplementedError

    def accept(self, token: int) -> None:
        raise NotImplementedError


def test_what_a_constraint_refuses_is_not_verified() -> None:
    """Where one drafter is refused another one, which is less sure, goes on."""
    refused = Source([0.9] * 7, name="refused", first_token=101)
    cut = Source([0.8] * 7, name="cut")
    ours = Planner([refused, cut, GrammarDrafter()], cost_model(FLAT), lambda: 1.0)
    contenders = ours.open(PROMPT, (), FAR_AWAY, Evens())
    [chosen] = ours.plan([Want(contenders, 0, FAR_AWAY, matcher=Evens())], len(FLAT))
    assert (chosen.draft.tokens, chosen.draft.sources) == ((100,), ("grammar",))
    assert pulled(chosen, "refused") == []
    assert pulled(chosen, "cut") == [[100]]


# Several answers


def shared_speed(
    chains: Sequence[Sequence[float]], lengths: Sequence[int], costs: Sequence[float]
) -> float:
    """Expected tokens per millisecond of a pass over the beginnings of several drafts."""
    expected = 0.0
    for chain, length in zip(chains, lengths, strict=True):
        expected += 1 + sum(itertools.accumulate(chain[:length], lambda a, b: a * b))
    return expected / costs[len(chains) + sum(lengths) - 1]


@given(
    st.lists(st.lists(SHARES, max_size=6), min_size=1, max_size=3),
    st.lists(MILLISECONDS, min_size=3, max_size=10),
)
def test_answers_share_the_rows_of_a_pass_as_is_best_for_all(
    chains: list[list[float]], costs: list[float]
) -> None:
    sources = [Source(chain) for chain in chains]
    ours = Planner([], cost_model(costs), lambda: 1.0)
    wants = [
        Want(Planner([source], ours.costs, lambda: 1.0).open(PROMPT, (), FAR_AWAY), 0, FAR_AWAY)
        for source in sources
    ]
    drafts = [each.draft for each in ours.plan(wants, len(costs))]
    choices = itertools.product(*(range(len(chain) + 1) for chain in chains))
    possible = [c for c in choices if len(chains) + sum(c) <= len(costs)]
    best = max(shared_speed(chains, choice, costs) for choice in possible)
    plain_speed = shared_speed(chains, [0] * len(chains), costs)
    if not any(drafts):
        least = 1 + (MIN_GAIN - 1) / len(chains)
        assert best <= least * plain_speed * (1 + 1e-12)
    else:
        mine = shared_speed(chains, [len(draft) for draft in drafts], costs)
        assert mine == pytest.approx(best, rel=1e-12)


class Ticking(FakeClock):
    """Stands still but while a drafter guesses, which takes `guess_ms`."""

    def __init__(self, guess_ms: float) -> None:
        super().__init__(tick=0.0)
        self.guess_ms = guess_ms

    def drafter(self, quoted_ms: float) -> Source:
        source = Source([0.9], quoted_ms)
        propose = source.propose

        def slowly(prefix: Sequence[int] = ()) -> Iterator[Proposal]:
            for guess in propose(prefix):
                self.pass_by(self.guess_ms / 1e3)
                yield guess

        source.propose = slowly  # type: ignore[method-assign]
        return source


def num_drafted(num_answers: int, num_emitted: int, guess_ms: float = 4.0) -> int:
    """Passes until a drafter that quotes 4 ms is asked no more, 100 at most.

    Of each pass, which takes 40 ms, every answer gets so many tokens.
    """
    clock = Ticking(guess_ms)
    ours = Planner([clock.drafter(4.0)], cost_model([30.0] * 2 + [40.0] * 6), clock)
    wants = [Want(ours.open(PROMPT, (), FAR_AWAY), 0, FAR_AWAY) for _ in range(num_answers)]
    for count in range(100):
        plans = ours.plan(wants, 8)
        if not any(each.start_ms for each in plans):
            return count
        assert all(each.drafter_ms == pytest.approx({"s": guess_ms}) for each in plans)
        ours.settle(wants, plans, [told(range(num_emitted))] * num_answers, 40.0)
    return 100


def test_real_times_are_billed() -> None:
    """The clock says that drafting took much longer than was quoted."""
    assert num_drafted(1, 2) == 100
    assert num_drafted(1, 1, 4.0) > 2 * num_drafted(1, 1, 40.0) > 0
    assert num_drafted(1, 2, 40.0) < 10


def test_a_pass_that_answers_share_is_billed_once() -> None:
    """Two answers lose 18 ms in a pass of 48 ms that gives one token each; one loses 14."""
    assert num_drafted(2, 2) == 100
    assert num_drafted(2, 1) == pytest.approx(num_drafted(1, 1) * 14 / 18, abs=2)
