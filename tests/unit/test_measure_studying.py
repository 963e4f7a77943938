"""What is printed of a drafter that learns in place."""

from __future__ import annotations

from measure_studying import Turn, line

TURNS = (
    Turn(plain_ms=300.0, alone_ms=200.0, learning_ms=160.0, study_ms=400.0, wait_ms=None),
    Turn(plain_ms=300.0, alone_ms=240.0, learning_ms=240.0, study_ms=600.0, wait_ms=4.0),
    Turn(plain_ms=200.0, alone_ms=160.0, learning_ms=200.0, study_ms=500.0, wait_ms=9.0),
)


def test_speeds_are_of_all_time_and_ratios_of_the_median_turn() -> None:
    assert line(TURNS, "1-3") == "| 1-3 | 1.333 | 1.333 | 1.000 | 500 | 6.5 (9.0) |"
    assert line(TURNS[:1], "1-1") == "| 1-1 | 1.500 | 1.875 | 1.250 | 400 | 0.0 (0.0) |"
