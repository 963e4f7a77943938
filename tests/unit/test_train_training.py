"""The course of a training, with a pupil that really learns: stops, checkpoints, the best state."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from train_support import BigramPupil, ring_course

from edgespec.learning.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from edgespec.learning.training import (
    Arrays,
    Judged,
    Limits,
    Progress,
    Training,
    TuningOptions,
    Watcher,
)

OPTIONS = TuningOptions(tokens_a_step=100)
NUM_TOKENS = 12


def never() -> bool:
    return False


def after(count: int) -> Callable[[], bool]:
    """Says no `count` times, then yes."""
    asked = iter(range(count))
    return lambda: next(asked, None) is None


def training(pupil: BigramPupil, progress: Progress | None = None) -> Training:
    seconds = iter(range(100_000))
    return Training(
        pupil, ring_course(), OPTIONS, lambda: float(next(seconds)), progress or Progress()
    )


def same(one: Arrays, other: Arrays) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in one)


def test_it_learns() -> None:
    pupil = BigramPupil(NUM_TOKENS)
    run = training(pupil)
    assert run.run(Limits(num_steps=60), Watcher(), never)
    assert run.progress.num_steps == 60
    assert run.progress.alone is not None
    assert run.progress.best is not None
    assert run.progress.best.share > run.progress.alone.share + 0.3
    assert run.progress.best.nll < run.progress.alone.nll
    assert run.progress.loss < run.progress.alone.nll
    judged = pupil.judge(ring_course().judge)
    assert judged.share > 0.7


def test_what_it_was_best_at_is_what_is_taken() -> None:
    pupil = BigramPupil(NUM_TOKENS, rate=0.3)
    run = training(pupil)
    assert run.run(Limits(num_steps=20, judged_every=5), Watcher(), never)
    best = run.progress.best_lora
    assert best is not None
    found = BigramPupil(NUM_TOKENS)
    change = best.changes["table.weight"]
    found.restore({"up": change.up, "down": change.down})
    assert found.judge(ring_course().guide) == run.progress.best


def test_it_ends_when_it_guesses_the_guide_no_better() -> None:
    run = training(BigramPupil(NUM_TOKENS, rate=0.0))
    assert run.run(Limits(patience=3, judged_every=2), Watcher(), never)
    assert run.progress.num_steps == 6
    assert run.progress.best == run.progress.alone


def test_a_guide_takes_a_tenth_of_the_time() -> None:
    course = ring_course()
    num_judged = sum(len(lesson.tokens) for lesson in course.guide)
    limits = Limits.of(course, TuningOptions(tokens_a_step=1))
    assert num_judged / 3 <= limits.judged_every / 10 <= num_judged / 3 + 0.1
    assert Limits.of(course, TuningOptions(), 7, 8.0) == Limits(7, 8.0), "a small one costs nothing"


def test_it_ends_in_time() -> None:
    run = training(BigramPupil(NUM_TOKENS))
    assert run.run(Limits(seconds=10.0), Watcher(), never)
    assert 3 <= run.progress.num_steps <= 10


@pytest.mark.parametrize("lessons_until_stop", [1, 4, 30, 31, 47])
def test_a_training_that_was_stopped_goes_on_as_if_it_had_not_been(
    tmp_path: Path, lessons_until_stop: int
) -> None:
    whole = BigramPupil(NUM_TOKENS)
    assert training(whole).run(Limits(num_steps=25), Watcher(), never)

    path = tmp_path / "checkpoint"

    def keep(progress: Progress, state: Arrays) -> None:
        write_checkpoint(Checkpoint("t", "d", "big", "small", OPTIONS, progress, state, ""), path)

    watcher = Watcher(keep=keep)
    stopped = training(BigramPupil(NUM_TOKENS))
    assert not stopped.run(Limits(num_steps=25), watcher, after(lessons_until_stop))
    assert stopped.progress.num_steps < 25

    kept, pupil = read_checkpoint(path), BigramPupil(NUM_TOKENS)
    assert kept.progress.num_steps == stopped.progress.num_steps
    pupil.restore(kept.state)
    resumed = training(pupil, kept.progress)
    assert resumed.run(Limits(num_steps=25), watcher, never)
    assert resumed.progress.num_steps == 25
    assert same(whole.state(), pupil.state())


def test_a_step_that_is_interrupted_is_dropped_as_a_whole() -> None:
    pupil, kept = BigramPupil(NUM_TOKENS), []
    before = pupil.state()
    run = training(pupil)
    keep = Watcher(keep=lambda progress, state: kept.append((progress, state)))
    assert not run.run(Limits(num_steps=5), keep, after(2))
    assert pupil.num_studied == 2
    ((progress, state),) = kept
    assert progress.num_steps == progress.num_lessons == 0
    assert same(before, state)
    pupil.step()  # nothing is left of the two lessons
    assert same(before, pupil.state())


def test_checkpoints_are_due_with_each_judgement_and_at_the_end() -> None:
    kept: list[int] = []
    shown: list[tuple[int, float, bool]] = []
    watcher = Watcher(
        show=lambda progress, share, is_judged: shown.append(
            (progress.num_steps, share, is_judged)
        ),
        keep=lambda progress, _state: kept.append(progress.num_steps),
    )
    limits = Limits(num_steps=7, judged_every=3, patience=99)
    assert training(BigramPupil(NUM_TOKENS)).run(limits, watcher, never)
    assert kept == [3, 6, 7]
    assert [steps for steps, _, _ in shown] == [1, 2, 3, 4, 5, 6, 7, 7]
    assert [steps for steps, _, is_judged in shown if is_judged] == [3, 6, 7]
    assert [share for _, share, _ in shown] == [*(steps / 7 for steps in range(7)), 1.0]


def test_a_share_of_nothing_is_nothing() -> None:
    assert Judged(0, 0, 0.0).share == 0.0
    assert Judged(4, 3, 0.5).share == 0.75
