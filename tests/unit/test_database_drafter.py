"""The `database` strategy, over the real index and over a small one of its own."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pytest
from fakes import FakeClock, flat_costs, judged, note_judged, told
from hypothesis import given
from hypothesis import strategies as st
from token_support import Recorded, in_memory

from edgespec.drafters.context import ContextDrafter
from edgespec.drafters.database import (
    LOOKUPS_AHEAD,
    NUM_TIERS,
    DatabaseDrafter,
    DatabaseSession,
    evidence_kind,
    new_calibration,
)
from edgespec.lookup.resumption import PRIOR
from edgespec.passes import Guesses, Proposal
from edgespec.planning.planner import Planner, Want
from edgespec.types import EncodedPrompt

PLACES = (0, 1, 4)
TEXTS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=30), max_size=4)


def drafter_over(recorded: Recorded, neighbours: int = 8) -> DatabaseDrafter:
    return DatabaseDrafter(
        [recorded.reader(neighbours), recorded.reader(neighbours, tier="statistics")]
    )


def opened(
    drafter: DatabaseDrafter, text: Iterable[int], said: Sequence[int] = ()
) -> DatabaseSession:
    return drafter.open(EncodedPrompt(tuple(text)), said)


def proposed(session: DatabaseSession, count: int = 50, prefix: Sequence[int] = ()) -> list[int]:
    return [proposal.token for proposal in itertools.islice(session.propose(prefix), count)]


def first_guess(session: DatabaseSession) -> Proposal:
    [guess] = itertools.islice(session.propose(), 1)
    return guess


@dataclass(frozen=True)
class Found:
    token: int
    length: int
    support: int
    total: int


class CountingIndex:
    """Passes look-ups on and counts them."""

    def __init__(self, recorded: Recorded) -> None:
        self._reader = recorded.reader()
        self.num_lookups = 0

    def lookup(self, suffix: Sequence[int]):  # type: ignore[no-untyped-def]  # noqa: ANN201
        self.num_lookups += 1
        return self._reader.lookup(suffix)


def test_an_answer_given_before_is_proposed_from_its_prompt_on() -> None:
    recorded = in_memory()
    prompt, answer = list(range(40)), list(range(100, 160))
    recorded.add(answer, context=prompt)
    session = opened(drafter_over(recorded), prompt)
    assert proposed(session, 60) == answer
    session.learn(told(answer[:7]))
    assert proposed(session, 5) == answer[7:12]


def test_an_empty_database_proposes_nothing() -> None:
    session = opened(drafter_over(in_memory()), [0, 1, 2, 3])
    assert proposed(session) == []
    session.learn(told([4]))
    assert proposed(session) == []
    assert DatabaseDrafter([]).calibration.num_kinds == new_calibration().num_kinds


def test_the_surer_tier_speaks_and_the_other_takes_over() -> None:
    recorded = in_memory()
    for _ in range(2):
        recorded.add([0, 1, 2, 3, 4, 5, 6])
    recorded.add([9, 1, 2, 3, 4, 5, 6, 7, 8], tier="statistics")
    guesses = list(opened(drafter_over(recorded), [0, 1, 2, 3]).propose())
    assert [guess.token for guess in guesses] == [4, 5, 6, 7, 8]
    kinds_of_a_tier = (new_calibration().num_kinds - len(PRIOR)) // NUM_TIERS
    tiers = [guess.evidence // kinds_of_a_tier for guess in guesses]
    assert tiers == [0, 0, 0, 1, 1]
    assert [guess.source for guess in guesses] == ["database"] * 3 + ["database/statistics"] * 2


def test_a_tier_that_was_wrong_here_is_asked_anew() -> None:
    recorded = in_memory()
    recorded.add([0, 1, 2, 3, 4])
    recorded.add([1, 2, 7, 8, 9])
    session = opened(drafter_over(recorded), [0, 1, 2])
    assert proposed(session, 1) == [3]
    session.learn(told([7]))
    assert proposed(session) == [8, 9]


def test_a_long_match_is_followed_without_another_look_up() -> None:
    recorded = in_memory()
    recorded.add(range(100))
    index = CountingIndex(recorded)
    session = opened(DatabaseDrafter([index]), range(20))
    for token in range(20, 60):
        assert proposed(session, 3) == [token, token + 1, token + 2]
        session.learn(told([token]))
    assert index.num_lookups == 1
    session.learn(told([777]))
    guesses = proposed(session)
    assert index.num_lookups == 2
    assert proposed(session) == guesses
    assert index.num_lookups == 2, "the text is the same"


def test_a_short_match_is_looked_up_with_every_kept_token() -> None:
    recorded = in_memory()
    recorded.add(range(100))
    index = CountingIndex(recorded)
    session = opened(DatabaseDrafter([index]), [4, 5, 6])
    assert proposed(session, 1) == [7]
    session.learn(told([7]))
    assert proposed(session, 1) == [8]
    assert index.num_lookups == 2


@given(
    TEXTS,
    st.lists(st.integers(0, 3), min_size=1, max_size=20),
    st.lists(st.integers(0, 3), max_size=5),
    st.integers(0, 10),
)
def test_proposing_changes_nothing(
    texts: list[list[int]], text: list[int], prefix: list[int], count: int
) -> None:
    recorded = in_memory()
    for sequence in texts:
        recorded.add(sequence)
    session = opened(drafter_over(recorded), text)
    first = list(itertools.islice(session.propose(), count))
    list(itertools.islice(session.propose(prefix), count))
    assert list(itertools.islice(session.propose(), count)) == first
    assert all(0 < proposal.acceptance < 1 for proposal in first)
    assert all(0 <= p.evidence < new_calibration().num_kinds for p in first)


@given(TEXTS, st.lists(st.integers(0, 3), min_size=1, max_size=12), st.data())
def test_step_by_step_the_guesses_are_those_of_a_new_look_up(
    texts: list[list[int]], text: list[int], data: st.DataObject
) -> None:
    """Following a cursor and starting anew at the same place propose the same first token.

    But for copies that broke off, which only the former knows of: none of them here.
    """
    recorded = in_memory()
    for sequence in texts:
        recorded.add(sequence)
    session = opened(drafter_over(recorded, neighbours=1000), text)
    whole = list(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgespec.drafters.database.MIN_COPIED", 1000)
        for _ in range(8):
            fresh = opened(drafter_over(recorded, neighbours=1000), whole)
            assert proposed(session, 1) == proposed(fresh, 1)
            kept = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))
            session.learn(told(kept))
            whole += kept


@given(
    TEXTS,
    st.lists(st.integers(0, 3), min_size=1, max_size=12),
    st.lists(st.integers(0, 3), min_size=1, max_size=5),
)
def test_after_a_draft_of_others_the_guesses_are_those_after_that_text(
    texts: list[list[int]], text: list[int], prefix: list[int]
) -> None:
    recorded = in_memory()
    for sequence in texts:
        recorded.add(sequence)
    session = opened(drafter_over(recorded, neighbours=1000), text)
    fresh = opened(drafter_over(recorded, neighbours=1000), [*text, *prefix])
    assert proposed(session, 1, prefix) == proposed(fresh, 1)


def test_drafts_of_others_cost_few_look_ups_in_one_pass() -> None:
    recorded = in_memory()
    recorded.add(range(100))
    index = CountingIndex(recorded)
    session = opened(DatabaseDrafter([index]), [3])
    for token in range(50):
        proposed(session, 2, [token, token + 1, token + 2])
    assert index.num_lookups == 1 + LOOKUPS_AHEAD
    session.learn(told([7]))
    assert proposed(session, 2, [20, 21, 22]) == [23, 24]
    assert index.num_lookups == 3 + LOOKUPS_AHEAD


def test_a_draft_of_others_that_agrees_with_a_long_match_needs_no_look_up() -> None:
    recorded = in_memory()
    recorded.add(range(100))
    index = CountingIndex(recorded)
    session = opened(DatabaseDrafter([index]), range(20))
    assert proposed(session, 2, [20, 21, 22]) == [23, 24]
    assert index.num_lookups == 1


def test_the_planner_lets_each_source_go_on_where_the_other_ends() -> None:
    """The context knows that 5 follows 4; the database knows what comes after 2, 3, 4, 5."""
    recorded = in_memory()
    for _ in range(3):
        recorded.add([6, 7, 8, 9], context=[2, 3, 4, 5])
    database = drafter_over(recorded)
    planner = Planner([ContextDrafter(), database], flat_costs(), FakeClock())
    prompt = EncodedPrompt((4, 5, 40, 41, 1, 2, 3, 4))
    wants = [Want(planner.open(prompt, (), 100), context=8, max_draft=7)]
    plans = planner.plan(wants, 8)
    assert plans[0].draft.tokens[:5] == (5, 6, 7, 8, 9)
    assert plans[0].draft.sources[0] == "context"
    assert plans[0].draft.sources[1:5] == ("database",) * 4
    kept = dataclasses.replace(told((5, 6, 7, 8, 9)), guesses=plans[0].guesses)
    noted = note_judged(database.calibration)
    planner.settle(wants, plans, [kept], 10.0)
    assert True in noted


def test_a_copy_with_a_changed_word_goes_on_behind_it() -> None:
    recorded = in_memory()
    recorded.add(range(100, 160), tier="statistics")
    for number in range(20):
        recorded.add([number, 112, 113, 114, 50 + number])
    session = opened(drafter_over(recorded), range(100, 110))
    assert proposed(session, 1) == [110]
    session.learn(told([7]))
    assert proposed(session, 3) == [111, 112, 113], "one token was replaced"
    session.learn(told([8, 9]))
    assert proposed(session, 3) == []
    session.learn(told([112]))
    assert proposed(session, 3) == [113, 114, 115], "its source is surer than any other match"
    assert first_guess(session).source == "database/statistics"
    assert proposed(session, 2, [113, 114]) == [115, 116]
    assert proposed(opened(drafter_over(recorded), [1, 2, 3]), 3) == [], "another answer"


def test_what_breaks_off_early_was_no_copy() -> None:
    recorded = in_memory()
    recorded.add(range(100, 160))
    session = opened(drafter_over(recorded), range(100, 104))
    assert proposed(session, 1) == [104]
    session.learn(told([7]))
    assert proposed(session, 3) == []


def test_resumed_copies_are_calibrated_by_themselves() -> None:
    recorded = in_memory()
    recorded.add(range(100, 160))
    drafter = drafter_over(recorded)

    def resumed() -> DatabaseSession:
        session = opened(drafter, range(100, 110))
        assert proposed(session, 1) == [110]
        session.learn(told([7]))
        return session

    guess = first_guess(resumed())
    assert guess.evidence >= drafter.calibration.num_kinds - len(PRIOR)
    for _ in range(30):
        resumed().learn(judged([guess], [guess.token], "database"))
    assert first_guess(resumed()).acceptance > guess.acceptance + 0.2


def test_answers_that_are_open_at_a_time_keep_apart() -> None:
    recorded = in_memory()
    recorded.add(range(100))
    drafter = DatabaseDrafter([recorded.reader()])
    one, other = opened(drafter, range(20)), opened(drafter, range(50), range(50, 55))
    for step in range(5):
        assert proposed(one, 2) == [20 + step, 21 + step]
        assert proposed(other, 2) == [55 + step, 56 + step]
        one.learn(told([20 + step]))
        other.learn(told([55 + step]))
    one.close()
    assert proposed(other, 1) == [60]


@pytest.mark.parametrize(("kept", "helped"), [(8, False), (3, True)])
def test_a_kept_guess_tells_its_tier_which_sequences_helped(kept: int, helped: bool) -> None:
    recorded = in_memory()
    helpful = recorded.add([0, 1, 2, 3], tier="statistics")
    recorded.add([1, 5, 3], tier="statistics")
    reader = recorded.reader(tier="statistics")
    session = opened(DatabaseDrafter([recorded.reader(), reader]), [0, 1, 2])
    session.learn(judged(session.propose(), [kept], "database"))
    assert reader.used == ({helpful} if helped else set())


def test_a_kept_guess_after_a_draft_of_others_names_its_own_sequences() -> None:
    recorded = in_memory()
    recorded.add([0, 1, 2, 3])
    helpful = recorded.add([7, 8, 9, 10, 11])
    reader = recorded.reader()
    session = opened(DatabaseDrafter([reader]), [0, 1, 2])
    early, late = tuple(session.propose()), tuple(session.propose([7, 8, 9]))
    runs = Guesses(0, early), Guesses(3, late)
    session.learn(told([7, 8, 9, 10], *runs, name="database"))
    assert reader.used == {helpful}
    reader.used.clear()
    session.learn(told([7, 8, 9, 10], *runs, name="database"))
    assert reader.used == set(), "what was guessed in an earlier pass is over"


def test_kinds_of_evidence_tell_tier_place_length_and_agreement_apart() -> None:
    kinds = {
        evidence_kind(tier, place, Found(0, length, support, total))
        for tier in range(NUM_TIERS)
        for place in PLACES
        for length in (3, 4, 5, 6, 9, 14, 22, 32)
        for support, total in ((1, 3), (2, 3), (1, 1), (3, 3))
    }
    assert kinds == set(range(new_calibration().num_kinds - len(PRIOR)))


@given(
    st.integers(0, 1),
    st.integers(0, 40),
    st.integers(0, 100),
    st.integers(1, 50),
    st.integers(0, 50),
)
def test_every_continuation_is_some_kind(
    tier: int, place: int, length: int, support: int, others: int
) -> None:
    kind = evidence_kind(tier, place, Found(0, length, support, support + others))
    assert 0 <= kind < new_calibration().num_kinds - len(PRIOR)


def test_longer_and_more_unanimous_matches_start_out_surer() -> None:
    calibration = new_calibration()

    def estimate(tier: int, length: int, support: int, total: int) -> float:
        return calibration.estimate(evidence_kind(tier, 0, Found(0, length, support, total)))

    for tier in range(NUM_TIERS):
        for length in (3, 5, 9):
            assert estimate(tier, length, 1, 3) < estimate(tier, length, 2, 3)
            assert estimate(tier, length, 2, 3) < estimate(tier, length, 3, 3)
            assert estimate(tier, length, 3, 3) < estimate(tier, 3 * length, 3, 3)


def test_more_tiers_than_the_calibration_knows_are_refused() -> None:
    reader = in_memory().reader()
    with pytest.raises(ValueError, match="3 tiers"):
        DatabaseDrafter([reader, reader, reader])
