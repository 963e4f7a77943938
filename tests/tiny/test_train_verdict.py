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
from train_support import ABOUT, random_lora

from edgespec.learning.distillation.architecture import MATRICES
from edgespec.learning.distillation.lessons import Lesson
from edgespec.learning.distillation.lora import Lora, LowRank
from edgespec.learning.distillation.lora_file import Way, write_lora
from edgespec.learning.distillation.lora_merge import merge
from edgespec.learning.distillation.verdict import LEAST_LEAD, Figures, Verdict, _chosen, judge
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
        beside, added = self.folder / "lora.gguf", self.folder / "merged.gguf"
        write_lora(lora, ABOUT, SPEC.architecture, beside)
        merge(lora, self.harmed, self.harmed, added)
        forms: dict[Way | None, tuple[Path, Path | None]] = {
            None: (self.harmed, None),
            "adapter": (self.harmed, beside),
            "merged": (added, None),
        }
        return judge(self.harmed, forms, self.lessons, PASS_MS, ModelOptions(), 1)


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


def test_what_helps_serves_in_the_faster_way(school: School) -> None:
    verdict = school.judged(school.remedy)
    assert verdict.num_judged == 12 * 32
    assert verdict.alone.share < 0.9
    assert verdict.alone.lead == 0.0
    for way in ("adapter", "merged"):
        assert verdict.ways[way].share > 0.97
        assert verdict.ways[way].lead > 3.0
        assert verdict.ways[way].speed > verdict.alone.speed
    assert verdict.way is not None
    best = max(figures.speed for figures in verdict.ways.values())
    assert verdict.ways[verdict.way].speed == best


def test_what_harms_is_kept_out(school: School) -> None:
    worse = random_lora(
        {
            name: (len(change.up), change.down.shape[1])
            for name, change in school.remedy.changes.items()
        },
        size=0.6,
        seed=9,
    )
    verdict = school.judged(worse)
    assert verdict.way is None
    assert all(figures.lead < LEAST_LEAD for figures in verdict.ways.values())


def test_what_changes_nothing_is_kept_out(school: School) -> None:
    nothing = {
        name: LowRank(change.down, np.zeros_like(change.up))
        for name, change in school.remedy.changes.items()
    }
    verdict = school.judged(Lora(4.0, nothing))
    assert verdict.way is None
    assert {figures.lead for figures in verdict.ways.values()} == {0.0}
    assert {figures.share for figures in verdict.ways.values()} == {verdict.alone.share}


@pytest.mark.parametrize(
    ("adapter", "merged", "way"),
    [
        (Figures(0.8, 5.0, 1.4, 5.0), Figures(0.8, 4.0, 1.5, 5.0), "merged"),
        (Figures(0.9, 5.0, 1.6, 9.0), Figures(0.8, 4.0, 1.5, 5.0), "adapter"),
        (Figures(0.9, 9.0, 1.1, 9.0), Figures(0.71, 4.0, 1.21, 0.5), None),  # slow, or chance
        (Figures(0.8, 4.0, 1.5, 5.0), Figures(0.79, 4.0, 1.5, 4.0), "adapter"),
    ],
)
def test_the_way_is_that_which_promises_most(
    adapter: Figures, merged: Figures, way: Way | None
) -> None:
    alone = Figures(0.7, 4.0, 1.2, 0.0)
    assert _chosen(alone, {"adapter": adapter, "merged": merged}) == way
