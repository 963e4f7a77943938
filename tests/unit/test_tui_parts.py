"""The parts of the chat app that need no terminal: each rule by itself."""

from __future__ import annotations

import doctest
import importlib
import unicodedata
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tui_support import MODEL

from edgespec.errors import ContextOverflowError
from edgespec.tui.failure import describe
from edgespec.tui.history import InputHistory
from edgespec.tui.pacing import Pacer
from edgespec.tui.plain import plain
from edgespec.tui.remarks import remarks
from edgespec.tui.status import Status, fit, ranked_parts, speed, speedup
from edgespec.types import Completion, SpeculationStats, Timings

TIMINGS = Timings(
    prompt_ms=300.0,
    decode_ms=2000.0,
    time_to_first_token_ms=300.0,
    num_prompt_tokens=1200,
    num_cached_tokens=0,
    num_decoded_tokens=37,
    plain_token_ms=100.0,
)
COMPLETION = Completion(
    text="Hello.",
    token_ids=tuple(range(37)),
    finish_reason="stop",
    timings=TIMINGS,
    stats=SpeculationStats(),
)


@pytest.mark.parametrize("name", ["failure", "pacing", "plain", "status"])
def test_the_examples_in_docstrings_hold(name: str) -> None:
    results = doctest.testmod(importlib.import_module(f"edgespec.tui.{name}"))
    assert results.attempted > 0
    assert results.failed == 0


def test_history_goes_back_to_the_oldest_and_forward_to_nothing() -> None:
    history = InputHistory()
    assert (history.older(), history.newer()) == ("", "")
    for message in ("a", "b", "b", "c"):
        history.add(message)
    assert [history.older() for _ in range(4)] == ["c", "b", "a", "a"]
    assert [history.newer() for _ in range(4)] == ["b", "c", "", ""]


@given(st.lists(st.text(min_size=1, max_size=3), max_size=8), st.integers(0, 10))
def test_adding_always_returns_past_the_newest(messages: list[str], steps: int) -> None:
    history = InputHistory()
    for message in messages:
        for _ in range(steps):
            history.older()
        history.add(message)
        assert history.current == ""
        assert history.older() == message


# Failures


def raised(error: Exception) -> Exception:
    try:
        raise error
    except type(error) as caught:
        return caught


def test_an_error_for_users_keeps_its_words_and_exit_code() -> None:
    failure = describe(ContextOverflowError("5,000 tokens do not fit", "shorten the\nmessage"))
    assert failure.line == "5,000 tokens do not fit; shorten the message"
    assert failure.exit_code == 4


def test_any_other_error_says_its_type_and_place() -> None:
    failure = describe(raised(ValueError()))
    assert failure.exit_code == 1
    assert failure.line.startswith("internal error at test_tui_parts.py:")
    assert failure.line.endswith(": ValueError; please report this")


@given(st.text())
def test_a_failure_is_always_one_line(text: str) -> None:
    assert len(describe(raised(RuntimeError(text))).line.splitlines()) == 1


@given(st.text(st.characters(max_codepoint=0x2FF)))
def test_plain_text_cannot_drive_a_terminal(text: str) -> None:
    shown = plain(text)
    assert len(shown) == len(text)
    assert all(
        character in "\t\n\r" or unicodedata.category(character) != "Cc" for character in shown
    )
    assert plain(shown) == shown


# Remarks

FULL = (
    "the context is full · /continue leaves out the oldest questions, /summary goes on in a new"
    " conversation"
)


def test_an_ordinary_answer_needs_no_remark() -> None:
    assert remarks(COMPLETION, None, 0) == []


@pytest.mark.parametrize(
    ("changes", "max_tokens", "expected"),
    [
        ({"finish_reason": "length"}, None, FULL),
        ({"finish_reason": "length"}, 38, FULL),
        ({"finish_reason": "length"}, 37, "the limit is 37 tokens"),
        ({"text": ""}, None, "the model had nothing to say"),
        ({"num_dropped_messages": 2}, None, "2 oldest messages no longer fit and were left out"),
    ],
)
def test_each_remark(changes: dict[str, object], max_tokens: int | None, expected: str) -> None:
    completion = replace(COMPLETION, **changes)  # type: ignore[arg-type]
    assert remarks(completion, max_tokens, 0) == [expected]
    if "/continue leaves out" in expected:
        assert "/continue" not in remarks(completion, None, 0, has_older=False)[0]


def test_a_stop_needs_no_remark() -> None:
    stopped = replace(COMPLETION, finish_reason="cancelled")
    assert remarks(stopped, None, 0) == remarks(replace(stopped, text=""), None, 0) == []


def test_left_out_messages_are_not_told_again() -> None:
    completion = replace(COMPLETION, num_dropped_messages=2)
    assert remarks(completion, None, 2) == []
    assert len(remarks(completion, None, 1)) == 1


# Pacing


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def stream(cost: float, seconds: float, pacer: Pacer, wall: Clock, cpu: Clock) -> int:
    """Redraw whenever the pacer allows it; each redraw takes `cost`. Returns how often."""
    pacer.begin()
    num_redraws, end = 0, wall.now + seconds
    while wall.now < end:
        wall.now += pacer.delay()
        pacer.redraw()
        wall.now += cost
        cpu.now += cost
        num_redraws += 1
    return num_redraws


def test_the_first_redraw_is_immediate_and_the_next_is_not() -> None:
    wall = Clock()
    pacer = Pacer(clock=wall, cpu_clock=Clock())
    assert pacer.delay() == 0
    pacer.redraw()
    assert pacer.delay() == pytest.approx(0.05)
    wall.now = 0.03
    assert pacer.delay() == pytest.approx(0.02)
    wall.now = 1.0
    assert pacer.delay() == 0


def test_cheap_redraws_come_twenty_times_a_second() -> None:
    wall, cpu = Clock(), Clock()
    assert stream(0.001, 10, Pacer(clock=wall, cpu_clock=cpu), wall, cpu) == pytest.approx(
        200, 0.02
    )


@pytest.mark.parametrize("cost", [0.002, 0.004, 0.006, 0.008])
def test_dear_redraws_keep_to_their_share_of_a_core(cost: float) -> None:
    wall, cpu = Clock(), Clock()
    stream(cost, 60, Pacer(clock=wall, cpu_clock=cpu), wall, cpu)
    assert cpu.now / wall.now <= 0.025


def test_the_screen_keeps_moving_however_dear_it_is() -> None:
    wall, cpu = Clock(), Clock()
    assert stream(0.2, 20, Pacer(clock=wall, cpu_clock=cpu), wall, cpu) >= 49


def test_time_between_answers_is_not_held_against_the_next() -> None:
    wall, cpu = Clock(), Clock()
    pacer = Pacer(clock=wall, cpu_clock=cpu)
    stream(0.001, 2, pacer, wall, cpu)
    cpu.now += 5.0
    assert stream(0.001, 10, pacer, wall, cpu) == pytest.approx(200, 0.02)


# Status bar


def test_unknown_numbers_are_not_shown() -> None:
    empty = [text for _, text in ranked_parts(Status(model=MODEL))]
    assert empty == ["identical", "qwen2.5-coder-1.5b", "drafter context"]
    first_token = replace(TIMINGS, decode_ms=0.0, num_decoded_tokens=1)
    status = Status(model=MODEL, timings=first_token, stats=SpeculationStats(emitted=1))
    assert [text for _, text in ranked_parts(status)] == ["context 1,201/4,096", *empty]


def test_numbers_come_from_timings() -> None:
    status = Status(model=MODEL, timings=TIMINGS)
    assert (speed(status), speedup(status)) == ("18.0 tok/s", "1.8x")
    unmeasured = Status(model=MODEL, timings=replace(TIMINGS, plain_token_ms=None))
    assert speedup(unmeasured) == ""


def test_no_drafter_is_said_so() -> None:
    status = Status(model=replace(MODEL, drafter="none"))
    assert "no drafter" in [text for _, text in ranked_parts(status)]


PARTS = st.lists(st.tuples(st.integers(0, 9), st.text("ab", min_size=1, max_size=9)), max_size=8)


@given(PARTS, st.integers(-3, 80))
def test_what_is_fitted_fits_in_order_and_leaves_out_the_highest_ranks(
    parts: list[tuple[int, str]], width: int
) -> None:
    kept = fit(parts, width)
    assert not kept or len(" · ".join(kept)) <= width
    ranked = sorted(parts, key=lambda part: part[0])
    assert sorted(kept) == sorted(text for _, text in ranked[: len(kept)])
    remaining = iter([text for _, text in parts])
    assert all(text in remaining for text in kept)


@given(PARTS, st.integers(0, 80))
def test_more_room_never_shows_less(parts: list[tuple[int, str]], width: int) -> None:
    assert len(fit(parts, width)) <= len(fit(parts, width + 1))
