"""The `context` strategy and its calibration."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import pytest
from fakes import judged, note_judged, told
from hypothesis import example, given
from hypothesis import strategies as st

from edgespec.drafters.context import (
    ContextDrafter,
    ContextSession,
    evidence_kind,
    new_calibration,
)
from edgespec.lookup.resumption import MIN_COPIED, PRIOR
from edgespec.lookup.suffix_automaton import Continuation, SuffixAutomaton
from edgespec.passes import Proposal
from edgespec.types import EncodedPrompt

TEXTS = st.lists(st.integers(0, 3), max_size=60)


def proposed(session: ContextSession, count: int) -> list[int]:
    return [proposal.token for proposal in itertools.islice(session.propose(), count)]


def first_guess(session: ContextSession) -> Proposal:
    [guess] = itertools.islice(session.propose(), 1)
    return guess


def begun(
    text: Sequence[int], said: Sequence[int] = (), drafter: ContextDrafter | None = None
) -> ContextSession:
    return (drafter or ContextDrafter()).open(EncodedPrompt(tuple(text)), said)


def test_a_repeated_passage_is_proposed_to_its_end() -> None:
    assert proposed(begun([1, 2, 3, 4, 5, 9, 1, 2]), 3) == [3, 4, 5]


def test_new_text_proposes_nothing() -> None:
    assert proposed(begun([1, 2, 3, 4]), 5) == []
    assert proposed(begun([]), 5) == []


def test_periodic_text_is_continued_for_ever() -> None:
    drafter = begun([1, 2, 3] * 4)
    assert proposed(drafter, 300) == [1, 2, 3] * 100


def test_the_end_of_the_text_is_no_end_of_the_draft() -> None:
    """At the text's end the match is shortened until something followed it."""
    drafter = begun([7, 1, 2, 7, 1])
    assert proposed(drafter, 6) == [2, 7, 1, 2, 7, 1]


@given(TEXTS, st.integers(0, 30))
def test_proposing_changes_nothing(text: list[int], count: int) -> None:
    session = begun(text)
    first = list(itertools.islice(session.propose(), count))
    assert list(itertools.islice(session.propose(), count)) == first
    assert all(0 < proposal.acceptance < 1 for proposal in first)
    assert all(0 <= p.evidence < new_calibration().num_kinds for p in first)


@given(TEXTS, TEXTS)
def test_what_was_said_before_it_was_opened_is_part_of_the_text(
    prompt: list[int], said: list[int]
) -> None:
    assert proposed(begun(prompt, said), 10) == proposed(begun(prompt + said), 10)


@given(TEXTS, TEXTS, TEXTS)
@example([1, 2, 3], [], [9, 1, 9, 5, 1, 9])
def test_an_earlier_conversation_does_not_show(
    first: list[int], answer: list[int], second: list[int]
) -> None:
    """Whether the prompt continues what is indexed or not, the guesses are those of the prompt."""
    for prompt in (first + answer + second, second, [9, *first, *answer, *second]):
        drafter = ContextDrafter()
        session = begun(first, drafter=drafter)
        session.learn(told(answer))
        session.close()
        assert proposed(begun(prompt, drafter=drafter), 10) == proposed(begun(prompt), 10)


@given(st.lists(TEXTS.filter(bool), min_size=2, max_size=4), st.data())
def test_answers_that_are_open_at_a_time_keep_apart(
    prompts: list[list[int]], data: st.DataObject
) -> None:
    """Opened, told and closed in any order, with conversations that begin alike among them."""
    drafter = ContextDrafter()
    texts = [list(prompt) for prompt in prompts]
    sessions = [begun(prompt, drafter=drafter) for prompt in prompts]
    for _ in range(8):
        place = data.draw(st.integers(0, len(prompts) - 1))
        if data.draw(st.booleans()):
            sessions[place].close()
            sessions[place] = begun(texts[place], drafter=drafter)
        more = data.draw(st.lists(st.integers(0, 3), max_size=5))
        sessions[place].learn(told(more))
        texts[place] += more
    fresh = [drafter.open(EncodedPrompt(tuple(text))) for text in texts]
    for session, text in zip(fresh, texts, strict=True):
        assert proposed(session, 10) == proposed(begun(text), 10)


def test_conversations_that_are_continued_are_not_indexed_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drafter = ContextDrafter()
    first, second = begun([1, 2, 3], drafter=drafter), begun([7, 8], drafter=drafter)
    first.learn(told([4, 5]))
    first.close()
    second.close()
    indexed: list[int] = []
    extend = SuffixAutomaton.extend

    def watch(automaton: SuffixAutomaton, tokens: Iterable[int]) -> None:
        indexed.extend(tokens := list(tokens))
        extend(automaton, tokens)

    monkeypatch.setattr(SuffixAutomaton, "extend", watch)
    begun([1, 2, 3, 4, 5, 6, 7], drafter=drafter)
    begun([7, 8, 9], drafter=drafter)
    assert indexed == [6, 7, 9]
    begun([1, 2, 3], drafter=drafter)
    assert indexed == [6, 7, 9, 1, 2, 3]


SOURCE = list(range(100, 140))


def test_a_copy_with_a_changed_word_goes_on_behind_it() -> None:
    session = begun([*SOURCE, 1, 2])
    session.learn(told(SOURCE[:8]))
    assert proposed(session, 3) == SOURCE[8:11]
    session.learn(told([7]))
    assert proposed(session, 3) == SOURCE[9:12], "one token was replaced"
    session.learn(told([8, 9]))
    assert proposed(session, 3) == []
    session.learn(told([SOURCE[12]]))
    assert proposed(session, 3) == SOURCE[13:16], "back after a single token"


def test_what_breaks_off_early_was_no_copy() -> None:
    session = begun([*SOURCE, 1, 2])
    session.learn(told([*SOURCE[: MIN_COPIED - 1], 7]))
    assert proposed(session, 3) == []


def test_a_break_in_the_middle_of_what_was_kept_is_seen() -> None:
    session = begun([*SOURCE, 1, 2])
    session.learn(told([*SOURCE[:8], 7, *SOURCE[9:11]]))
    assert proposed(session, 3) == SOURCE[11:14]


def test_a_new_answer_ends_what_was_being_copied() -> None:
    drafter = ContextDrafter()
    session = begun([*SOURCE, 1, 2], drafter=drafter)
    session.learn(told([*SOURCE[:8], 7]))
    session.close()
    assert proposed(begun([3, 4, 5], drafter=drafter), 3) == []


def test_resumed_copies_are_calibrated_by_themselves() -> None:
    drafter = ContextDrafter()

    def resumed() -> ContextSession:
        session = begun([*SOURCE, 1, 2], drafter=drafter)
        session.learn(told([*SOURCE[:8], 7]))
        return session

    guess = first_guess(resumed())
    assert guess.evidence >= drafter.calibration.num_kinds - len(PRIOR)
    for _ in range(30):
        resumed().learn(judged([guess], [guess.token], "context"))
    assert first_guess(resumed()).acceptance > guess.acceptance + 0.2


def test_learning_raises_and_lowers_the_estimate_of_that_evidence() -> None:
    """For the sessions to come, and for those that are open."""
    drafter = ContextDrafter()
    text = [1, 2, 3, 1, 2]
    other = begun(text, drafter=drafter)
    guess = first_guess(begun(text, drafter=drafter))
    for _ in range(30):
        begun(text, drafter=drafter).learn(judged([guess], [guess.token], "context"))
    assert first_guess(other).acceptance > max(guess.acceptance, 0.8)
    for _ in range(200):
        begun(text, drafter=drafter).learn(judged([guess], [guess.token + 1], "context"))
    assert first_guess(other).acceptance < 0.2


@pytest.mark.parametrize(
    ("kept", "start", "rights"),
    [
        ([0, 9, 2, 3], 0, [True, False]),  # nothing after the first wrong one
        ([0], 0, [True]),  # nothing that was not reached
        ([8, 8, 0, 9], 2, [True, False]),  # from its place in the draft on
        ([8, 8], 2, []),
    ],
)
def test_only_guesses_that_the_target_judged_are_learned_from(
    kept: list[int], start: int, rights: list[bool]
) -> None:
    drafter = ContextDrafter()
    noted = note_judged(drafter.calibration)
    proposals = [Proposal(token, 0.5, token) for token in range(4)]
    begun([5], drafter=drafter).learn(judged(proposals, kept, "context", start))
    assert noted == rights


def test_kinds_of_evidence_tell_length_and_agreement_apart() -> None:
    kinds = {
        evidence_kind(Continuation(0, length + 1, support, total))
        for length in (1, 2, 3, 4, 6, 9, 14, 22)
        for support, total in ((1, 3), (2, 3), (1, 1), (3, 3))
    }
    assert kinds == set(range(new_calibration().num_kinds - len(PRIOR)))


@given(st.integers(1, 10_000), st.integers(1, 50), st.integers(0, 50))
def test_every_continuation_is_some_kind(length: int, support: int, others: int) -> None:
    kind = evidence_kind(Continuation(0, length, support, support + others))
    assert 0 <= kind < new_calibration().num_kinds


def test_longer_and_more_unanimous_matches_start_out_surer() -> None:
    calibration = new_calibration()

    def estimate(length: int, support: int, total: int) -> float:
        kind = evidence_kind(Continuation(0, length + 1, support, total))
        return calibration.estimate(kind)

    for length in (1, 3, 9):
        assert estimate(length, 1, 3) < estimate(length, 2, 3) < estimate(length, 3, 3)
        assert estimate(length, 3, 3) < estimate(3 * length, 3, 3)


def test_a_prediction_is_proposed_from_its_beginning_and_after_changes() -> None:
    predicted = (1, 2, 3, 4, 5, 6, 7, 8, 9)
    session = ContextDrafter().open(EncodedPrompt((50, 51), prediction=predicted))
    assert proposed(session, 20) == list(predicted)
    for token in (1, 2, 3, 4, 5, 99):
        session.learn(told((token,)))
    assert proposed(session, 20) == [7, 8, 9]
    session.close()


def test_what_was_predicted_is_not_part_of_the_conversation() -> None:
    drafter = ContextDrafter()
    drafter.open(EncodedPrompt((50, 51), prediction=(1, 2, 3))).close()
    assert proposed(begun((50, 51, 1), drafter=drafter), 5) == []
    predicted = drafter.open(EncodedPrompt((7, 8, 9), prediction=(1, 2, 3, 7, 8, 9)))
    for token in (1, 2, 3):
        predicted.learn(told((token,)))
    assert proposed(predicted, 9) == [7, 8, 9, 1, 2, 3, 7, 8, 9], "the end of one begins no other"
