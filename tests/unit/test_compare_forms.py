"""What is printed of two forms of a drafter."""

from __future__ import annotations

from compare_forms import Compared, summary


def test_speeds_are_of_all_time_and_the_ratio_of_the_median_answer() -> None:
    compared = [Compared(300.0, (200.0, 160.0)), Compared(100.0, (100.0, 100.0))]
    assert summary(compared) == "1.333 and 1.538, median ratio 1.125, 2 questions"
