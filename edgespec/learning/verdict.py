"""The gate of a training: it serves only if it guesses held-out answers better, not by chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
from edgespec.learning.lessons import Lesson
from edgespec.llama.model import ModelOptions

LEAST_LEAD = 1.0
"""Standard deviations of chance by which it must guess better."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found on `num_judged` tokens, of the drafter alone and as it was trained.

    Shares are of the guesses that were right; speeds are those to expect against plain decoding.
    `lead` is in standard deviations of chance, over the tokens that just one of both guessed.
    """

    num_judged: int
    share_alone: float
    share_trained: float
    lead: float
    speed_alone: float
    speed_trained: float

    @property
    def serves(self) -> bool:
        """Whether it guesses better, and is not slower for that."""
        return self.lead >= LEAST_LEAD and self.speed_trained >= self.speed_alone


def judge(
    whole: Path,
    running: Path,
    merged: Path,
    lessons: Sequence[Lesson],
    pass_ms: Mapping[int, float],
    options: ModelOptions,
    num_threads: int,
) -> Verdict:
    """Weigh `merged`, which has what was learned added to `running`, against that.

    Both are forms of `whole`, of the same types, so a token costs the same; `lessons` were not
    learned from; `pass_ms` is T(r) of the target. Raises ModelFileError, NativeLibraryError.
    """
    texts = [TokenText(text.tokens[: text.first], text.tokens[text.first :]) for text in lessons]
    table = EmbeddingTable(whole)

    def read(drafter: OpenDrafter) -> list[Readings]:
        return [read_text(drafter, text, whole_head(drafter))[0] for text in texts]

    with OpenDrafter(running, table, options, num_threads) as drafter:
        (token_ms,) = token_costs([drafter]).ms
        alone = read(drafter)
    with OpenDrafter(merged, table, options, num_threads) as drafter:
        trained = read(drafter)
    speeds = [
        expected_speed(readings, token_ms, pass_ms) if math.isfinite(token_ms) else 1.0
        for readings in (alone, trained)
    ]
    before, after = (
        np.concatenate([np.zeros(0, np.bool_), *(part.hits for part in parts)])
        for parts in (alone, trained)
    )
    num_judged = max(len(before), 1)
    lead = (int(after.sum()) - int(before.sum())) / math.sqrt(max(int((before != after).sum()), 1))
    shares = int(before.sum()) / num_judged, int(after.sum()) / num_judged
    return Verdict(len(before), *shares, lead, *speeds)
