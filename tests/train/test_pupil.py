"""A drafter that is trained in torch: it learns, and goes on after a break as if there was none."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from rigs import SMALL
from tiny_models import write_tiny_model
from train_support import ring_course

from edgespec.gguf.file import GgufFile
from edgespec.learning.corpus import NO_TOKEN
from edgespec.learning.decoder import Decoder
from edgespec.learning.lessons import Course, Lesson
from edgespec.learning.pupil import TorchPupil
from edgespec.learning.soft import Soft
from edgespec.learning.training import (
    Arrays,
    Limits,
    Progress,
    Training,
    TuningOptions,
    Watcher,
)

OPTIONS = TuningOptions(rank=4, alpha=4.0, learning_rate=5e-3, tokens_a_step=100, num_warm=3)
KEPT = np.arange(0, 512, 2, dtype=np.int32)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    spec = dataclasses.replace(SMALL, architecture="qwen2")
    path = write_tiny_model(tmp_path_factory.mktemp("pupil") / "model.gguf", spec)
    return Decoder(GgufFile(path), KEPT, torch.float32)


def pupil(decoder: Decoder) -> TorchPupil:
    return TorchPupil(decoder, KEPT, 512, OPTIONS)


def course() -> Course:
    """The ring of the other tests, in tokens that the head has."""

    def even(lessons: tuple[Lesson, ...]) -> tuple[Lesson, ...]:
        return tuple(
            dataclasses.replace(lesson, tokens=tuple(2 * token for token in lesson.tokens))
            for lesson in lessons
        )

    ring = ring_course()
    return Course(even(ring.lessons), even(ring.guide), even(ring.judge), ring.num_answers)


def run(
    one: TorchPupil,
    limits: Limits,
    keep: Watcher,
    progress: Progress | None = None,
    stop_at: int = -1,
) -> Training:
    training = Training(one, course(), OPTIONS, lambda: 0.0, progress or Progress())
    asked = iter(range(10_000))
    training.run(limits, keep, lambda: next(asked) == stop_at)
    return training


def test_it_learns_what_the_target_says(decoder: Decoder) -> None:
    one = pupil(decoder)
    before = one.judge(course().judge)
    training = run(one, Limits(num_steps=25), Watcher())
    after = one.judge(course().judge)
    assert after.nll < before.nll - 1.0
    assert after.share > before.share + 0.3
    assert training.progress.best_lora is not None
    assert training.progress.best_lora.changes.keys() == decoder.matrices.keys()


def test_at_first_it_changes_nothing(decoder: Decoder) -> None:
    lora = pupil(decoder).lora()
    assert all(not lora.delta(name).any() for name in lora.changes)
    assert {name: (len(c.up), c.down.shape[1]) for name, c in lora.changes.items()} == (
        decoder.matrices
    )


def test_it_goes_on_as_if_there_had_been_no_break(decoder: Decoder) -> None:
    whole = pupil(decoder)
    run(whole, Limits(num_steps=8), Watcher())

    kept: list[tuple[Progress, Arrays]] = []
    keep = Watcher(keep=lambda progress, state: kept.append((progress, state)))
    run(pupil(decoder), Limits(num_steps=8), keep, stop_at=11)
    progress, state = kept[-1]
    assert 0 < progress.num_steps < 8
    other = pupil(decoder)
    other.restore(state)
    resumed = run(other, Limits(num_steps=8), Watcher(), progress)
    assert resumed.progress.num_steps == 8
    one, two = whole.state(), other.state()
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_allclose(one[name], two[name], rtol=1e-4, atol=1e-6)


def test_what_serves_is_the_mean_of_the_latest_steps(decoder: Decoder) -> None:
    """Of the first steps only the last counts, then a quarter of them, each as much as the next."""
    one, name = pupil(decoder), next(iter(decoder.matrices))
    ups = []
    for lesson in course().lessons[:12]:
        one.study(lesson)
        one.step()
        ups.append(one.state()[f"{name}.up"])
    mean = ups[0]
    for number, up in enumerate(ups[1:], start=2):
        mean = mean + (up - mean) / max(OPTIONS.share_of_mean * number, 1.0)
    np.testing.assert_allclose(one.lora().changes[name].up, mean, rtol=1e-3, atol=1e-7)
    assert np.abs(mean - ups[-1]).max() > 1e-6


def test_it_begins_with_what_was_learned_before(decoder: Decoder) -> None:
    one, other = pupil(decoder), pupil(decoder)
    run(one, Limits(num_steps=8), Watcher())
    lora = one.lora()
    other.adopt(dataclasses.replace(lora, alpha=2 * lora.alpha))
    for name in lora.changes:
        np.testing.assert_allclose(other.lora().delta(name), 2 * lora.delta(name), rtol=1e-5)
    other.adopt(lora)
    assert other.judge(course().guide) == one.judge(course().guide)
    wider = TorchPupil(decoder, KEPT, 512, dataclasses.replace(OPTIONS, rank=5)).lora()
    with pytest.raises(ValueError, match="another rank"):
        other.adopt(wider)


def test_a_state_of_another_form_is_refused(decoder: Decoder) -> None:
    one = pupil(decoder)
    before = one.state()
    name = next(iter(decoder.matrices))
    wider = TorchPupil(decoder, KEPT, 512, dataclasses.replace(OPTIONS, rank=5)).state()
    for odd in (wider, {**before, f"{name}.up.exp_avg": np.ones(3, np.float32)}):
        with pytest.raises(ValueError, match="another form"):
            one.restore(odd)
    with pytest.raises(ValueError, match="missing"):
        one.restore({"num_steps": np.array([3.0], np.float32)})
    assert all(np.array_equal(before[key], value) for key, value in one.state().items())


def test_tokens_that_the_head_has_not_are_not_taught(decoder: Decoder) -> None:
    one = pupil(decoder)
    before = one.state()
    assert one.study(Lesson((2, 4, 7, 9), 2)) == 0.0
    one.step()
    assert all(np.array_equal(before[key], v) for key, v in one.state().items() if "." in key)
    judged = one.judge([Lesson((2, 4, 7, 9), 2)])
    assert (judged.num_tokens, judged.num_right, judged.nll) == (2, 0, 0.0)
    mixed = one.judge([Lesson((2, 4, 6, 9), 2)])
    assert mixed.num_tokens == 2
    assert mixed.nll > 0


def chance(one: TorchPupil, *tokens: int) -> float:
    """What the pupil gives the last of some tokens after those before."""
    return math.exp(-one.judge([Lesson(tokens, len(tokens) - 1)]).nll)


@pytest.mark.parametrize("weight", [1.0, 0.5, 0.0])
def test_what_the_target_held_likely_is_learned_as_far_as_it_weighs(
    decoder: Decoder, weight: float
) -> None:
    """Said was 6, then 8; of the second place nothing is told, and 7 has no row in the head."""
    options = dataclasses.replace(OPTIONS, soft=weight)
    one = TorchPupil(decoder, KEPT, 512, options)
    nothing = [NO_TOKEN] * 4
    told = np.array([[6, 8, 10, 7], nothing], np.int32)
    likely = np.array([[0.4, 0.3, 0.2, 0.1], [0.0] * 4], np.float32)
    lesson = Lesson((2, 4, 6, 8), 2, Soft(told, likely))
    for _ in range(150):
        one.study(lesson)
        one.step()
    wanted = {6: 1 - 0.5 * weight, 8: 0.3 * weight, 10: 0.2 * weight}
    for token, share in wanted.items():
        assert chance(one, 2, 4, token) == pytest.approx(share, abs=0.04)
    assert chance(one, 2, 4, 6, 8) > 0.9
