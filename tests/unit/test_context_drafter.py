"""The `context` strategy and its calibration."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgespec.drafters.context import ContextDrafter, evidence_kind, new_calibration
from edgespec.drafters.none import NoDrafter
from edgespec.estimates.counts import MEMORY, PRIOR_STRENGTH, Calibration
from edgespec.lookup.resumption import MIN_COPIED, PRIOR
from edgespec.lookup.suffix_automaton import Continuation, SuffixAutomaton
from edgespec.passes import Proposal

TEXTS = st.lists(st.integers(0, 3), max_size=60)


def proposed(drafter: ContextDrafter, count: int) -> list[int]:
    return [proposal.token for proposal in itertools.islice(drafter.propose(), count)]


def begun(text: list[int]) -> ContextDrafter:
    drafter = ContextDrafter()
    drafter.begin(text)
    return drafter


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
    drafter = begun(text)
    first = list(itertools.islice(drafter.propose(), count))
    assert list(itertools.islice(drafter.propose(), count)) == first
    assert all(0 < proposal.acceptance < 1 for proposal in first)
    assert all(0 <= p.evidence < drafter.calibration.num_kinds for p in first)


@given(TEXTS, TEXTS, TEXTS)
@example([1, 2, 3], [], [9, 1, 9, 5, 1, 9])
def test_an_earlier_conversation_does_not_show(
    first: list[int], answer: list[int], second: list[int]
) -> None:
    """Whether the prompt continues what is indexed or not, the guesses are those of the prompt."""
    for prompt in (first + answer + second, second, [9, *first, *answer, *second]):
        drafter = begun(first)
        drafter.extend(answer)
        drafter.begin(prompt)
        assert proposed(drafter, 10) == proposed(begun(prompt), 10)


def test_a_continued_conversation_is_not_indexed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    drafter = begun([1, 2, 3])
    drafter.extend([4, 5])
    indexed: list[int] = []
    extend = SuffixAutomaton.extend

    def watch(automaton: SuffixAutomaton, tokens: Iterable[int]) -> None:
        indexed.extend(tokens)
        extend(automaton, tokens)

    monkeypatch.setattr(SuffixAutomaton, "extend", watch)
    drafter.begin([1, 2, 3, 4, 5, 6, 7])
    assert indexed == [6, 7]
    drafter.begin([1, 2, 3])
    assert indexed == [6, 7, 1, 2, 3]


SOURCE = list(range(100, 140))


def test_a_copy_with_a_changed_word_goes_on_behind_it() -> None:
    drafter = begun([*SOURCE, 1, 2])
    drafter.extend(SOURCE[:8])
    assert proposed(drafter, 3) == SOURCE[8:11]
    drafter.extend([7])
    assert proposed(drafter, 3) == SOURCE[9:12], "one token was replaced"
    drafter.extend([8, 9])
    assert proposed(drafter, 3) == []
    drafter.extend([SOURCE[12]])
    assert proposed(drafter, 3) == SOURCE[13:16], "back after a single token"


def test_what_breaks_off_early_was_no_copy() -> None:
    drafter = begun([*SOURCE, 1, 2])
    drafter.extend([*SOURCE[: MIN_COPIED - 1], 7])
    assert proposed(drafter, 3) == []


def test_a_break_in_the_middle_of_what_was_kept_is_seen() -> None:
    drafter = begun([*SOURCE, 1, 2])
    drafter.extend([*SOURCE[:8], 7, *SOURCE[9:11]])
    assert proposed(drafter, 3) == SOURCE[11:14]


def test_a_new_prompt_ends_what_was_being_copied() -> None:
    drafter = begun([*SOURCE, 1, 2])
    drafter.extend([*SOURCE[:8], 7])
    drafter.begin([3, 4, 5])
    assert proposed(drafter, 3) == []


def test_resumed_copies_are_calibrated_by_themselves() -> None:
    drafter = begun([*SOURCE, 1, 2])
    drafter.extend([*SOURCE[:8], 7])
    [guess] = itertools.islice(drafter.propose(), 1)
    assert guess.evidence >= drafter.calibration.num_kinds - len(PRIOR)
    for _ in range(30):
        drafter.learn([guess], [guess.token])
    [surer] = itertools.islice(drafter.propose(), 1)
    assert surer.acceptance > guess.acceptance + 0.2


def test_learning_raises_and_lowers_the_estimate_of_that_evidence() -> None:
    drafter = begun([1, 2, 3, 1, 2])
    [guess] = itertools.islice(drafter.propose(), 1)
    for _ in range(30):
        drafter.learn([guess], [guess.token])
    [surer] = itertools.islice(drafter.propose(), 1)
    assert surer.acceptance > max(guess.acceptance, 0.8)
    for _ in range(200):
        drafter.learn([guess], [guess.token + 1])
    [doubtful] = itertools.islice(drafter.propose(), 1)
    assert doubtful.acceptance < 0.2


def test_nothing_is_learned_from_guesses_after_the_first_wrong_one() -> None:
    drafter = ContextDrafter()
    proposals = [Proposal(token, 0.5, evidence=token) for token in range(4)]
    drafter.learn(proposals, [0, 9, 2, 3])
    counts = drafter.calibration.counts.export()
    assert counts[:4] == [[1, 0], [0, 1], [0, 0], [0, 0]]


def test_a_guess_that_the_target_did_not_reach_is_not_judged() -> None:
    drafter = ContextDrafter()
    drafter.learn([Proposal(5, 0.5, evidence=0), Proposal(6, 0.5, evidence=1)], [5])
    assert drafter.calibration.counts.export()[:2] == [[1, 0], [0, 0]]


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
        return calibration.estimate(evidence_kind(Continuation(0, length + 1, support, total)))

    for length in (1, 3, 9):
        assert estimate(length, 1, 3) < estimate(length, 2, 3) < estimate(length, 3, 3)
        assert estimate(length, 3, 3) < estimate(3 * length, 3, 3)


def test_the_trivial_strategy_never_proposes() -> None:
    drafter = NoDrafter()
    drafter.begin([1, 2, 1, 2, 1])
    drafter.extend([2])
    drafter.learn([], [2])
    assert list(drafter.propose()) == []


def test_an_estimate_starts_at_its_prior() -> None:
    calibration = Calibration([0.2, 0.7, 0.0, 1.0])
    assert calibration.num_kinds == 4
    assert [calibration.estimate(kind) for kind in range(2)] == pytest.approx([0.2, 0.7])
    assert 0 < calibration.estimate(2) < 0.01
    assert 0.99 < calibration.estimate(3) < 1


@pytest.mark.parametrize("truth", [0.1, 0.5, 0.95])
def test_an_estimate_converges_to_the_share_that_is_kept(truth: float) -> None:
    calibration = Calibration([0.5, 0.3])
    stream = random.Random(4)
    for _ in range(1500):
        calibration.observe(0, stream.random() < truth)
    assert calibration.estimate(0) == pytest.approx(truth, abs=0.05)
    assert calibration.estimate(1) == pytest.approx(0.3), "the other kind saw nothing"


def test_a_few_observations_weigh_as_much_as_the_prior() -> None:
    calibration = Calibration([0.0])
    for _ in range(int(PRIOR_STRENGTH)):
        calibration.observe(0, True)
    assert calibration.estimate(0) == pytest.approx(0.5, abs=0.02)


def test_old_observations_fade() -> None:
    calibration = Calibration([0.5])
    for _ in range(5000):
        calibration.observe(0, True)
    for _ in range(int(MEMORY)):
        calibration.observe(0, False)
    assert calibration.estimate(0) == pytest.approx(0.5, abs=0.02)


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=100))
def test_counts_survive_being_kept(observations: list[tuple[int, bool]]) -> None:
    calibration, restored = Calibration([0.1, 0.4, 0.6, 0.9]), Calibration([0.1, 0.4, 0.6, 0.9])
    for kind, kept in observations:
        calibration.observe(kind, kept)
    restored.restore(calibration.export())
    assert restored.export() == calibration.export()
    for kind in range(4):
        assert restored.estimate(kind) == pytest.approx(calibration.estimate(kind), abs=0.002)


def test_restored_counts_are_a_copy() -> None:
    calibration = Calibration([0.5])
    counts = [[3.0, 1.0]]
    calibration.restore(counts)
    calibration.observe(0, True)
    assert counts == [[3.0, 1.0]]


@pytest.mark.parametrize(
    "garbage",
    [
        [],
        [[1.0, 2.0]],
        [[1.0], [2.0]],
        [[1.0, 2.0], [3.0]],
        [[1.0, 2.0], [3.0, -1.0]],
        [[1.0, 2.0], [3.0, float("nan")]],
        [[1.0, 2.0], [3.0, float("inf")]],
        [["one", "two"], ["three", "four"]],
        [[1.0, 2.0], None],
        [[1.0, 2.0], {"right": 3}],
        None,
        {"right": 1},
        "counts",
        7,
    ],
    ids=str,
)
def test_garbage_is_not_restored(garbage: list[list[float]]) -> None:
    calibration = Calibration([0.5, 0.5])
    calibration.observe(0, True)
    before = calibration.export()
    calibration.restore(garbage)
    assert calibration.export() == before
