"""The gate of a training: it serves only if it guesses held-out answers better, not by chance.

It can serve beside the drafter's matrices, which costs time, or added to them, which costs some of
it where the types are coarse. Both are measured as they would run, and the faster one is taken.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgespec.forms.weighing import (
    OpenDrafter,
    Readings,
    TokenText,
    expected_speed,
    read_text,
    token_costs,
    whole_head,
)
from edgespec.gguf.embeddings import EmbeddingTable
from edgespec.learning.distillation.lessons import Lesson
from edgespec.learning.distillation.lora_file import Way
from edgespec.llama.model import ModelOptions

LEAST_LEAD = 1.0
"""Standard deviations of chance by which it must guess better."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One way to serve: share of guesses that were right, cost, expected speed, lead over alone.

    `lead` is in standard deviations of chance, over the tokens that just one of both guessed.
    """

    share: float
    token_ms: float
    speed: float
    lead: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found on `num_judged` tokens; `way` is None if it may not serve."""

    num_judged: int
    alone: Figures
    ways: Mapping[Way, Figures]
    way: Way | None


def judge(
    whole: Path,
    forms: Mapping[Way | None, tuple[Path, Path | None]],
    lessons: Sequence[Lesson],
    pass_ms: Mapping[int, float],
    options: ModelOptions,
    num_threads: int,
) -> Verdict:
    """Weigh ways to serve against the drafter alone, which is under None.

    `forms` are files that run and the adapter beside each; `lessons` were not learned from;
    `pass_ms` is T(r) of the target. Raises ModelFileError, NativeLibraryError.
    """
    texts = [TokenText(text.tokens[: text.first], text.tokens[text.first :]) for text in lessons]
    table = EmbeddingTable(whole)
    with ExitStack() as cleanup:
        opened = []
        for running, adapter in forms.values():
            drafter = OpenDrafter(running, table, options, num_threads)
            opened.append(cleanup.enter_context(drafter))
            if adapter is not None:
                drafter.use_adapter(adapter)
        costs = token_costs(opened).ms
        read = [
            [read_text(drafter, text, whole_head(drafter))[0] for text in texts]
            for drafter in opened
        ]
    found = dict(zip(forms, zip(costs, read, strict=True), strict=True))
    cost, readings = found[None]
    alone = _figures(readings, readings, cost, pass_ms)
    ways: dict[Way, Figures] = {
        way: _figures(read, readings, cost, pass_ms)
        for way, (cost, read) in found.items()
        if way is not None
    }
    return Verdict(sum(len(text.answer) for text in texts), alone, ways, _chosen(alone, ways))


def _chosen(alone: Figures, ways: Mapping[Way, Figures]) -> Way | None:
    """The fastest of those that guess better and are not slower for that."""
    able = [
        way
        for way, figures in ways.items()
        if figures.lead >= LEAST_LEAD and figures.speed >= alone.speed
    ]
    return max(able, key=lambda way: (ways[way].speed, ways[way].share), default=None)


def _figures(
    read: Sequence[Readings],
    alone: Sequence[Readings],
    token_ms: float,
    pass_ms: Mapping[int, float],
) -> Figures:
    ours, theirs = (np.concatenate([part.hits for part in parts]) for parts in (read, alone))
    discordant = int((ours != theirs).sum())
    lead = (int(ours.sum()) - int(theirs.sum())) / math.sqrt(max(discordant, 1))
    speed = expected_speed(read, token_ms, pass_ms) if math.isfinite(token_ms) else 1.0
    return Figures(float(ours.mean()), token_ms, speed, lead)
