"""Replays of recorded drafts: the files, the clock, hindsight."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_drafts import (
    Answer,
    Playback,
    Recorded,
    key_of,
    load_answers,
    load_guesses,
    save_answers,
    save_guesses,
)
from replay_drafts import PASS_MS, Clock, Hindsight, Replay, TimedPlayback, speeds

from edgespec.drafters.context import ContextDrafter

REPEATING = Answer("song", "sing", tuple(range(20)), tuple(range(20)) * 3)
FRESH = Answer("news", "tell", (1, 2, 3), tuple(range(50, 90)))
GUESSES = {
    key_of(0, [1, 2]): Recorded(3, 0.9),
    key_of(1, [1, 2]): Recorded(4, 0.5),
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


def test_a_playback_says_what_was_recorded_in_that_state() -> None:
    playback = Playback(GUESSES)
    playback.read([1, 2, 9])
    playback.truncate(2)
    assert playback.guess() == (3, 0.9)
    playback.answer = 1
    assert playback.guess() == (4, 0.5)
    playback.read([5])
    assert playback.guess() in {(3, 0.9), (4, 0.5)}


def test_reading_takes_its_time() -> None:
    clock = Clock()
    playback = TimedPlayback(GUESSES, clock, guess_ms=3.0, read_ms=0.5)
    playback.read([1])
    playback.read([1, 2, 3])
    assert clock.now_ms == pytest.approx(3.0 + 4.0)
    assert clock() == pytest.approx(0.007)


def test_without_drafters_the_time_is_that_of_plain_decoding() -> None:
    run = Replay([], Clock()).run(0, FRESH)
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


def test_speeds_are_means_of_answers() -> None:
    replay = Replay([], Clock())
    runs = [replay.run(0, FRESH), replay.run(0, REPEATING), replay.run(0, FRESH)]
    assert speeds(runs) == pytest.approx({"news": 1.0, "song": 1.0, "overall": 1.0})
