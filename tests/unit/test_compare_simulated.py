"""Where the time of drafted answers goes: the stopwatch, the shares, the table of speeds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from compare_simulated import Measured, Stopwatch, print_shares, print_speeds, shares_of
from record_drafts import Answer

from edgespec.passes import Proposal

CODE = Answer("coding", "write", (1, 2), (3, 4, 5))
NEWS = Answer("news", "tell", (1, 2), (6, 7))


def measured(answer: Answer, drafted_ms: float, **by_part: float) -> Measured:
    parts = {
        name.replace("_", " ").replace("look ups", "look-ups"): by_part[name] for name in by_part
    }
    return Measured(answer, 100.0, drafted_ms, parts, num_guesses=4)


def test_a_stopwatch_gives_what_was_given_and_counts_it() -> None:
    watch = Stopwatch()
    doubled = watch.around("double", lambda number, *, by=2: number * by)
    assert [doubled(1), doubled(4, by=3)] == [2, 12]
    ms, counts = watch.take()
    assert counts == {"double": 2}
    assert ms["double"] >= 0.0
    assert watch.take() == ({}, {})


def test_a_call_that_fails_is_timed_too() -> None:
    watch = Stopwatch()

    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        watch.around("fail", fail)()
    assert watch.take()[1] == {"fail": 1}


def test_a_generator_is_timed_step_by_step_and_stays_lazy() -> None:
    watch, asked = Stopwatch(), []

    def guesses(start: int) -> Iterator[Proposal]:
        for token in range(start, start + 3):
            asked.append(token)
            yield Proposal(token, 0.5)

    steps = watch.around_each("model", guesses)(7)
    assert next(steps).token == 7
    assert asked == [7]
    assert [step.token for step in steps] == [8, 9]
    assert watch.take()[1] == {"model": 4}  # its end is a step


def test_shares_tell_parts_that_contain_others_apart() -> None:
    one = measured(
        CODE,
        200.0,
        target=120.0,
        model=40.0,
        passes_of_the_drafter=20.0,
        guesses=10.0,
        look_ups=6.0,
    )
    assert shares_of([one]) == pytest.approx(
        {"target": 0.6, "drafter": 0.15, "bridge": 0.05, "look-ups": 0.03, "rest": 0.17}
    )


def test_the_tables_have_a_line_for_each_category_and_one_for_all(
    capsys: pytest.CaptureFixture[str],
) -> None:
    both = [measured(CODE, 200.0, target=120.0), measured(NEWS, 50.0, target=50.0)]
    print_shares(both)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["coding", "news", "overall"]
    assert lines[4].startswith("| overall | 8 | 0.680 |")
    print_speeds(
        [CODE, NEWS], {"measured": [(50.0, 100.0), (100.0, 100.0)], "as planned": [(1, 2)] * 2}
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:] == [
        "| coding | 2.000 | 2.000 |",
        "| news | 1.000 | 2.000 |",
        "| overall | 1.333 | 2.000 |",
    ]
