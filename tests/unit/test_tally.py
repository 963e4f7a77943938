"""What plain decoding would have taken, told by the passes of an answer itself (times in ms)."""

from __future__ import annotations

import pytest
from fakes import FakeClock

from edgespec.engine.tally import Tally
from edgespec.passes import Kept, PassRecord
from edgespec.types import PrefillProgress, Timings

OTHER_MS = 1.0
"""Sampling and the like, of each token."""


class Answer:
    """An answer on a machine that takes `slow` times what is expected: T(1) = 10, T(4) = 12."""

    def __init__(self, slow: float = 1.0) -> None:
        self.slow = slow
        self.clock = FakeClock(tick=0.0)
        self.tally = Tally(self.clock)
        first = PassRecord(8, 8, 0, 80.0)
        self.tally.take(Kept((1,), ("target",), (0,), first, progress=PrefillProgress(8, 8, 0)))

    def write(self, num_rows: int, num_tokens: int, times: int = 1, others: int = 0) -> Answer:
        expected = {1: 10.0, 4: 12.0}[num_rows]
        record = PassRecord(
            num_rows, num_rows + others, 9, expected * self.slow, expected, {"m": 2.0}, 0.0, 10.0
        )
        for _ in range(times):
            self.clock.pass_by((record.target_ms + 2.0 + num_tokens * OTHER_MS) / 1e3)
            self.tally.take(Kept((1,) * num_tokens, ("m",) * num_tokens, (), record))
        return self

    @property
    def timings(self) -> Timings:
        return self.tally.timings()


@pytest.mark.parametrize("slow", [0.5, 1.0, 10.0])
def test_other_load_slows_plain_decoding_as_well(slow: float) -> None:
    timings = Answer(slow).write(1, 1, times=8).write(4, 4, times=8).timings
    assert timings.plain_token_ms == pytest.approx(10 * slow + OTHER_MS)
    taken = 8 * (10 * slow + 3) + 8 * (12 * slow + 6)
    assert timings.speedup == pytest.approx(40 * (10 * slow + OTHER_MS) / taken)


def test_where_few_passes_are_of_one_row_all_tell_how_busy_the_machine_is() -> None:
    timings = Answer(3.0).write(4, 3, times=6).timings
    assert timings.plain_token_ms == pytest.approx(30 + OTHER_MS)


def test_passes_of_one_row_know_better_than_the_shape_of_the_curve() -> None:
    answer = Answer(2.0).write(1, 1, times=5)
    answer.slow = 4.0  # four rows are not as cheap as was expected
    assert answer.write(4, 4, times=20).timings.plain_token_ms == pytest.approx(20 + OTHER_MS)


def test_without_drafts_the_speed_is_that_of_plain_decoding() -> None:
    answer = Answer(7.0)
    record = PassRecord(1, 1, 9, 70.0, 10.0, {}, 0.0, 10.0)
    for _ in range(9):
        answer.clock.pass_by(0.0725)
        answer.tally.take(Kept((1,), ("target",), (0,), record))
    assert answer.timings.speedup == pytest.approx(1.0)


@pytest.mark.parametrize("others", [0, 1])
def test_nothing_is_told_of_few_passes_or_of_shared_ones(others: int) -> None:
    answer = Answer().write(1, 1, times=3)
    assert answer.timings.plain_token_ms is None and answer.timings.speedup is None
    answer.write(1, 1, others=others)
    assert (answer.timings.speedup is None) == bool(others)


def test_making_text_of_tokens_counts_from_the_first_one_on() -> None:
    tally = Tally(FakeClock())
    for text_ms in (5.0, 0.25, 0.5):
        tally.take(Kept((1,), ("target",), (0,), PassRecord(1, 1, 0, 1.0)), text_ms)
    assert tally.timings().text_ms == 0.75
