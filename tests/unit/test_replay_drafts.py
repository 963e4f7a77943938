"""Replays of recorded drafts: the files, the clock, hindsight, figures of estimates."""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from measure_calibration import (
    Judged,
    Listening,
    brier,
    in_order,
    load_recording,
    log_loss,
    print_judged,
    reliability,
)
from record_drafts import (
    Answer,
    Playback,
    Recorded,
    key_of,
    load_answers,
    load_guesses,
    recorded,
    save_answers,
    save_guesses,
)
from replay_drafts import PASS_MS, Clock, Hindsight, Replay, TimedPlayback, speeds

from edgespec.drafters.context import ContextDrafter
from edgespec.estimates.acceptance import Acceptance
from edgespec.estimates.counts import Calibration
from edgespec.passes import Proposal
from edgespec.planning.credit import Credit

REPEATING = Answer("song", "sing", tuple(range(20)), tuple(range(20)) * 3)
FRESH = Answer("news", "tell", (1, 2, 3), tuple(range(50, 90)))
GUESSES = {
    key_of(0, [1, 2]): Recorded(3, 0.9, 0.1, 0.05),
    key_of(1, [1, 2]): Recorded(4, 0.5, 2.0, 0.4),
}
TOKENS = st.lists(st.integers(0, 2**31 - 1), max_size=20).map(tuple)


@given(st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=4))
def test_answers_come_back_as_they_were_written(
    rows: list[tuple[tuple[int, ...], tuple[int, ...]]],
) -> None:
    answers = [Answer("kind", f"number {place}", *row) for place, row in enumerate(rows)]
    with tempfile.TemporaryDirectory() as folder:
        save_answers(Path(folder) / "answers.npz", answers)
        assert load_answers(Path(folder) / "answers.npz") == answers


def test_guesses_come_back_as_they_were_written(tmp_path: Path) -> None:
    save_guesses(tmp_path / "guesses.npz", GUESSES)
    again = load_guesses(tmp_path / "guesses.npz")
    assert list(again) == list(GUESSES)
    for key, guess in GUESSES.items():
        assert again[key].token == guess.token
        assert again[key].probability == pytest.approx(guess.probability)
        assert again[key].second == pytest.approx(guess.second)


def test_a_row_of_logits_is_recorded_as_what_it_says() -> None:
    shares = np.array([0.1, 0.6, 0.05, 0.25])
    guess = recorded(7, np.log(shares).astype(np.float32) + 3)
    assert guess.token == 7
    assert guess.probability == pytest.approx(0.6, rel=1e-5)
    assert guess.second == pytest.approx(0.25, rel=1e-5)
    assert guess.entropy == pytest.approx(-float(shares @ np.log(shares)), rel=1e-5)


def test_a_playback_says_what_was_recorded_in_that_state() -> None:
    playback = Playback(GUESSES)
    playback.read([1, 2, 9])
    playback.truncate(2)
    assert playback.guess() == (3, 0.9)
    playback.answer = 1
    assert playback.guess() == (4, 0.5)
    playback.read([5])
    assert playback.guess() in {(3, 0.9), (4, 0.5)}
    assert (playback.num_guesses, playback.num_missing) == (3, 1)


def test_reading_takes_its_time() -> None:
    clock = Clock()
    playback = TimedPlayback(GUESSES, clock, guess_ms=3.0, read_ms=0.5)
    playback.read([1])
    playback.read([1, 2, 3])
    assert clock.now_ms == pytest.approx(3.0 + 4.0)
    assert clock() == pytest.approx(0.007)


def test_without_drafters_the_time_is_that_of_plain_decoding() -> None:
    replay = Replay([], Clock())
    run = replay.run(0, FRESH)
    assert run.ms == pytest.approx(run.plain_ms) == pytest.approx(39 * PASS_MS[0])
    assert (run.num_passes, run.num_proposed) == (40, 0)


def test_copies_are_as_fast_as_their_passes() -> None:
    clock = Clock()
    run = Replay([ContextDrafter()], clock).run(0, REPEATING)
    assert run.num_accepted > 40
    assert run.num_accepted + run.num_passes == len(REPEATING.tokens)
    assert run.ms < run.plain_ms / 2
    assert clock.now_ms == pytest.approx(run.ms)


def test_hindsight_proposes_nothing_wrong_and_pays_for_nothing_wrong() -> None:
    clock = Clock()
    with_hindsight = Replay([Hindsight(ContextDrafter(), clock)], clock, max_tokens=1)
    for answer in (REPEATING, FRESH, Answer("half", "", (1, 2, 3, 4), (1, 2, 3, 9) * 8)):
        run = with_hindsight.run(0, answer)
        own_clock = Clock()
        assert run.num_accepted == run.num_proposed
        assert run.ms <= Replay([ContextDrafter()], own_clock, max_tokens=1).run(0, answer).ms


def test_an_answer_that_was_cut_is_told_from_one_that_ended() -> None:
    class Noting(Credit):
        def end(self, *, ended: bool) -> None:
            noted.append(ended)

    noted: list[bool] = []
    replay = Replay([ContextDrafter()], Clock(), credit=Noting(100.0), max_tokens=40)
    for answer in (FRESH, REPEATING):
        run = replay.run(0, answer)
        assert run.num_accepted + run.num_passes == len(answer.tokens)
    replay.run(0, Answer("short", "", (1, 2), (5, 6, 7)))
    assert noted == [False, False, True]


def test_speeds_are_means_of_answers() -> None:
    replay = Replay([], Clock())
    runs = [replay.run(0, FRESH), replay.run(0, REPEATING), replay.run(0, FRESH)]
    assert speeds(runs) == pytest.approx({"news": 1.0, "song": 1.0, "overall": 1.0})


def judged(*pairs: tuple[float, bool]) -> Judged:
    return Judged([estimate for estimate, _ in pairs], [kept for _, kept in pairs])


def test_scores_of_estimates() -> None:
    some = judged((0.8, True), (0.6, False))
    assert brier(some) == pytest.approx((0.04 + 0.36) / 2)
    assert log_loss(some) == pytest.approx(-(math.log(0.8) + math.log(0.4)) / 2)


@given(st.lists(st.tuples(st.floats(0.01, 0.99), st.booleans()), min_size=1))
def test_the_reliability_diagram_holds_every_guess(pairs: list[tuple[float, bool]]) -> None:
    rows = reliability(judged(*pairs))
    assert sum(count for _, count, _, _ in rows) == len(pairs)
    kept = sum(count * share for _, count, _, share in rows)
    assert kept == pytest.approx(sum(held for _, held in pairs))
    assert all(low <= estimate for low, _, estimate, _ in rows)
    assert [low for low, *_ in rows] == sorted(low for low, *_ in rows)


@pytest.mark.parametrize("head", [True, False])
def test_listening_notes_what_was_judged(head: bool, capsys: pytest.CaptureFixture[str]) -> None:
    noted = Judged()
    fresh = Acceptance(Calibration([0.5]), (1.0, 1.0, 0.0, 0.0, 0.0))
    listening = Listening(fresh, noted, head=head)
    estimate = listening.estimate(0, (0.0,))
    assert (estimate > 0.6) == head, "the head's first weight is 1"
    guesses = [Proposal(token, estimate, 0, (0.0,)) for token in (5, 6, 7)]
    assert listening.learn(guesses, [5, 9, 9]) == [True, False]
    assert noted.kept == [True, False]
    assert noted.estimates == [estimate, estimate]
    print_judged("some", noted)
    assert f"some: 2 guesses, Brier {brier(noted):.4f}" in capsys.readouterr().out


@given(st.lists(st.sampled_from("abc"), max_size=20), st.integers(0, 9), st.booleans())
def test_an_order_has_every_answer_once(categories: list[str], seed: int, mixed: bool) -> None:
    answers = [(number, Answer(name, "", (), ())) for number, name in enumerate(categories)]
    ordered = in_order(answers, seed, mixed=mixed)
    assert sorted(number for number, _ in ordered) == list(range(len(categories)))
    assert ordered == in_order(answers, seed, mixed=mixed)
    if not mixed:
        runs = [answer.category for _, answer in ordered]
        changes = sum(one != other for one, other in itertools.pairwise(runs))
        assert changes == max(len(set(runs)) - 1, 0), "each category is one stretch"


def test_a_recording_may_come_in_several_files(tmp_path: Path) -> None:
    files = []
    for number, answer in enumerate((REPEATING, FRESH)):
        said, guessed = tmp_path / f"a{number}.npz", tmp_path / f"g{number}.npz"
        save_answers(said, [answer])
        save_guesses(guessed, {key_of(0, [number]): Recorded(number, 0.5, 1.0, 0.2)})
        files += [said, guessed]
    recording = load_recording(files)
    assert recording.answers == ((0, REPEATING), (0, FRESH))
    assert [guess.token for guess in recording.guesses.values()] == [0, 1]


def test_an_account_without_end_lets_every_loss_be() -> None:
    class Wrong(ContextDrafter):
        cost_ms = 10.0

        def propose(self, prefix: Sequence[int] = ()) -> Iterator[Proposal]:
            clock.now_ms += 10.0
            return iter([Proposal(7, 0.9)])

    lost = []
    for credit in (None, Credit(math.inf)):
        clock = Clock()
        replay = Replay([Wrong()], clock, credit=credit)
        runs = [replay.run(0, FRESH) for _ in range(20)]
        lost.append(sum(run.ms for run in runs) / sum(run.plain_ms for run in runs))
    assert lost[0] < 1.04
    assert lost[1] > 1.3
