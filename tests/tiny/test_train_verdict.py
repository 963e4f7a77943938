"""The gate of a training, on models that really guess: what helps serves, nothing else does."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from rigs import SMALL, corpus_tokens
from tiny_models import write_tiny_model
from train_support import random_lora

from edgespec.learning.architecture import MATRICES
from edgespec.learning.lessons import Lesson
from edgespec.learning.lora import Lora, LowRank, merge
from edgespec.learning.verdict import LEAST_LEAD, Verdict, judge
from edgespec.llama.context import Context, ContextOptions
from edgespec.llama.model import Model, ModelOptions

SPEC = dataclasses.replace(SMALL, quantization="F32")
PASS_MS = {1: 1000.0, 8: 1001.0}
"""A target so slow that any guess is worth its time."""


@dataclass
class School:
    """A drafter that was harmed by a known change, and lessons that it once would have known."""

    harmed: Path
    remedy: Lora
    lessons: list[Lesson]
    folder: Path

    def judged(self, lora: Lora) -> Verdict:
        added, harmed = self.folder / "merged.gguf", self.harmed
        merge(lora, harmed, harmed, added)
        return judge(harmed, harmed, added, self.lessons, PASS_MS, ModelOptions(), 1)


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory) -> Iterator[School]:
    folder = tmp_path_factory.mktemp("school")
    sound = write_tiny_model(folder / "sound.gguf", SPEC)
    size = {"attn_k": SPEC.kv_width, "attn_v": SPEC.kv_width}
    size |= {"ffn_gate": SPEC.ffn_width, "ffn_up": SPEC.ffn_width}
    shapes = {
        f"blk.{layer}.{name}.weight": (
            size.get(name, SPEC.width),
            SPEC.ffn_width if name == "ffn_down" else SPEC.width,
        )
        for layer in range(SPEC.num_layers)
        for name in MATRICES
    }
    harm = random_lora(shapes, size=0.2)
    merge(harm, sound, sound, folder / "harmed.gguf")
    remedy = {name: LowRank(change.down, -change.up) for name, change in harm.changes.items()}
    with Model(sound) as model:
        lessons = [said(model, start) for start in range(12)]
    yield School(folder / "harmed.gguf", Lora(harm.alpha, remedy), lessons, folder)


def said(model: Model, start: int) -> Lesson:
    """What a model goes on with after some of the corpus."""
    tokens = corpus_tokens(model, 200)[13 * start : 13 * start + 8]
    with Context(model, ContextOptions(256, 1)) as context:
        context.decode(tokens, 0)
        for position in itertools.count(len(tokens)):
            tokens.append(int(np.argmax(context.logits(0))))
            if len(tokens) == 40:
                return Lesson(tuple(tokens), 8)
            context.decode(tokens[-1:], position)
    raise AssertionError


def test_what_helps_serves(school: School) -> None:
    verdict = school.judged(school.remedy)
    assert verdict.num_judged == 12 * 32
    assert verdict.share_alone < 0.9
    assert verdict.share_trained > 0.97
    assert verdict.lead > 3.0
    assert verdict.speed_trained > verdict.speed_alone
    assert verdict.serves


def test_what_harms_is_kept_out(school: School) -> None:
    shapes = {
        name: (len(change.up), change.down.shape[1])
        for name, change in school.remedy.changes.items()
    }
    verdict = school.judged(random_lora(shapes, size=0.6, seed=9))
    assert verdict.lead < LEAST_LEAD
    assert not verdict.serves


def test_what_changes_nothing_is_kept_out(school: School) -> None:
    nothing = {
        name: LowRank(change.down, np.zeros_like(change.up))
        for name, change in school.remedy.changes.items()
    }
    verdict = school.judged(Lora(4.0, nothing))
    assert verdict.lead == 0.0
    assert verdict.share_trained == verdict.share_alone
    assert not verdict.serves


@pytest.mark.parametrize(
    ("lead", "speed", "serves"),
    [(5.0, 1.5, True), (0.5, 1.5, False), (5.0, 1.1, False), (1.0, 1.2, True)],
)
def test_it_must_be_better_by_more_than_chance_and_not_slower(
    lead: float, speed: float, serves: bool
) -> None:
    assert Verdict(900, 0.7, 0.8, lead, 1.2, speed).serves is serves
