"""Measure acceptance estimates and planning on recorded drafts: counts, head, hindsight.

    python scripts/measure_calibration.py TARGET.gguf DRAFTER.gguf ANSWERS.npz GUESSES.npz...

Takes what scripts/record_drafts.py recorded: ANSWERS.npz GUESSES.npz, any number of such pairs.
Only vocabularies are loaded. The product's own loop, planner and drafters (context and model) run
over the answers in several orders (scripts/replay_drafts.py); nothing is known beforehand, and what
is learned in one answer serves in the next. Prints how estimates and outcomes agree, Brier score
and log loss, and the speed against plain decoding with the counts alone, with whatever scores
better, and with hindsight.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from record_drafts import Answer, Recorded, load_answers, load_guesses
from replay_drafts import (
    GUESS_MS,
    PASS_MS,
    READ_MS,
    STEEP_MS,
    Clock,
    Hindsight,
    Replay,
    Run,
    TimedPlayback,
    speeds,
)

from edgespec.drafters.context import ContextDrafter
from edgespec.drafters.model import ModelDrafter
from edgespec.estimates.acceptance import Acceptance
from edgespec.llama.model import Model, ModelOptions
from edgespec.passes import Proposal
from edgespec.planning.credit import Credit
from edgespec.protocols import Drafter
from edgespec.runtime.model_drafter import Renderer
from edgespec.types import Message
from edgespec.vocab.ngrams import NgramCache
from edgespec.vocab.tokenizer import ByteTokenizer, Encoded, Tokenizer

NUM_ORDERS = 6
EDGES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)

Method = Literal["context", "counts", "head", "unlimited", "hindsight"]
METHODS: tuple[Method, ...] = get_args(Method)
"""Look-ups alone; with the model: counts alone, counts or head as they score, the same without a
limit to what drafting may lose, full knowledge."""

JUDGED: tuple[Method, ...] = ("counts", "head")
CURVES = {"weights fetched ahead": PASS_MS, "before": STEEP_MS}
ORDERS = {"mixed": True, "by category": False}


@dataclass(slots=True)
class Judged:
    """Estimates of guesses and whether they were kept."""

    estimates: list[float] = field(default_factory=list)
    kept: list[bool] = field(default_factory=list)

    def arrays(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Estimates, and 1 for those kept: both (num_guesses,)."""
        return np.array(self.estimates), np.array(self.kept, dtype=np.float64)


def brier(judged: Judged) -> float:
    """Mean squared difference of estimate and outcome."""
    estimates, kept = judged.arrays()
    return float(np.mean((estimates - kept) ** 2))


def log_loss(judged: Judged) -> float:
    """Mean negative log-likelihood of the outcomes, in nats."""
    estimates, kept = judged.arrays()
    return float(-np.mean(np.log(np.where(kept == 1, estimates, 1 - estimates))))


def reliability(judged: Judged) -> list[tuple[float, int, float, float]]:
    """For each class of estimates: lower bound, guesses, mean estimate, share kept."""
    estimates, kept = judged.arrays()
    bins = np.searchsorted(EDGES, estimates, side="right")
    bounds = (0.0, *EDGES)
    rows = []
    for number, low in enumerate(bounds):
        inside = bins == number
        if inside.any():
            count = int(inside.sum())
            rows.append((low, count, float(estimates[inside].mean()), float(kept[inside].mean())))
    return rows


class Listening(Acceptance):
    """Estimates that note how they did; `head` False lets the counts alone serve."""

    def __init__(self, other: Acceptance, judged: Judged, *, head: bool) -> None:
        """`other` is fresh and tells kinds and prior; `judged` is where it notes."""
        super().__init__(other.counts, other.head.weights)
        self.judged = judged
        self._uses_head = head

    def estimate(self, kind: int, features: Sequence[float] = ()) -> float:
        """As it serves."""
        return super().estimate(kind, features if self._uses_head else ())

    def learn(self, proposals: Sequence[Proposal], kept: Sequence[int]) -> list[bool]:
        """Note what was said of each guess, and what came of it."""
        held = super().learn(proposals, kept)
        self.judged.kept += held
        self.judged.estimates += [proposal.acceptance for proposal in proposals[: len(held)]]
        return held


@dataclass(frozen=True, slots=True)
class Recording:
    """Answers, each with its number when it was recorded, and what a drafter guesses in them."""

    answers: tuple[tuple[int, Answer], ...]
    guesses: dict[int, Recorded]


def load_recording(files: Sequence[Path]) -> Recording:
    """What ANSWERS.npz GUESSES.npz ... hold; a state's hash tells answers of the files apart."""
    answers: list[tuple[int, Answer]] = []
    guesses: dict[int, Recorded] = {}
    for said, guessed in zip(files[::2], files[1::2], strict=True):
        answers += enumerate(load_answers(said))
        guesses |= load_guesses(guessed)
    return Recording(tuple(answers), guesses)


class Remembering(ByteTokenizer):
    """Tokenizes everything once: replays say the same again and again."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        self._known: dict[bytes, Encoded] = {}

    def encode(self, data: bytes) -> Encoded:
        """As the vocabulary does."""
        if data not in self._known:
            self._known[data] = super().encode(data)
        return self._known[data]


class Pair:
    """Vocabularies of target and drafter, both open models."""

    def __init__(self, target: Model, drafter: Model) -> None:
        self._name = drafter.path.stem
        self._vocabularies = Remembering(target.vocab), Remembering(drafter.vocab)
        self._render = Renderer(drafter)

    def drafter_over(self, playback: TimedPlayback) -> ModelDrafter:
        """The product's drafter around recorded guesses."""
        return ModelDrafter(
            self._name,
            playback,
            self._vocabularies,
            self._render,
            NgramCache(),
            playback.guess_ms,
            playback.clock,
        )


@dataclass(slots=True)
class Outcome:
    """One method over all answers."""

    runs: list[Run] = field(default_factory=list)
    by_drafter: dict[str, Judged] = field(default_factory=dict)


def in_order(
    answers: Sequence[tuple[int, Answer]], seed: int, *, mixed: bool
) -> list[tuple[int, Answer]]:
    """Answers in a random order, or one category after the other, each in random order."""
    stream = random.Random(seed)
    shuffled = stream.sample(list(answers), len(answers))
    if mixed:
        return shuffled
    categories = sorted({answer.category for _, answer in answers})
    stream.shuffle(categories)
    return sorted(shuffled, key=lambda item: categories.index(item[1].category))


def replay(
    pair: Pair,
    recording: Recording,
    method: Method,
    outcome: Outcome,
    seed: int,
    *,
    mixed: bool,
    pass_ms: Sequence[float],
) -> None:
    """All answers once, learning from one to the next."""
    clock = Clock()
    playback = TimedPlayback(recording.guesses, clock, GUESS_MS, READ_MS)
    context, model = ContextDrafter(), pair.drafter_over(playback)
    for name, drafter in (("context", context), ("model", model)):
        judged = outcome.by_drafter.setdefault(name, Judged())
        drafter.calibration = Listening(drafter.calibration, judged, head=method != "counts")
    drafters: list[Drafter] = [context, model]
    if method == "hindsight":
        drafters = [Hindsight(drafter, clock) for drafter in drafters]
    asked = drafters[:1] if method == "context" else drafters
    credit = Credit(math.inf) if method in ("unlimited", "hindsight") else None
    engine = Replay(asked, clock, playback, pass_ms, credit)
    for number, answer in in_order(recording.answers, seed, mixed=mixed):
        model.read_prompt((Message("user", answer.question),))
        outcome.runs.append(engine.run(number, answer))


def main(arguments: Sequence[str]) -> None:
    """Print all figures of one pair of target and drafter."""
    target, drafter, *files = map(Path, arguments)
    recording = load_recording(files)
    options = ModelOptions(vocabulary_only=True)
    with Model(target, options) as one, Model(drafter, options) as other:
        pair = Pair(one, other)
        for (curve, pass_ms), (order, mixed) in product(CURVES.items(), ORDERS.items()):
            print(f"T(r): {curve}, answers {order}")
            outcomes: dict[Method, Outcome] = {}
            for method in METHODS:
                outcomes[method] = Outcome()
                for seed in range(NUM_ORDERS):
                    outcome = outcomes[method]
                    replay(pair, recording, method, outcome, seed, mixed=mixed, pass_ms=pass_ms)
            for name, method in product(("context", "model"), JUDGED):
                print_judged(f"{name}, {method}", outcomes[method].by_drafter[name])
            print_speeds({method: speeds(outcome.runs) for method, outcome in outcomes.items()})


def print_judged(title: str, judged: Judged) -> None:
    """Brier score, log loss and reliability of one drafter's estimates."""
    print(f"{title}: {len(judged.kept)} guesses", end="")
    print(f", Brier {brier(judged):.4f}, log loss {log_loss(judged):.4f}")
    for low, count, estimate, kept in reliability(judged):
        print(f"  from {low:.2f}: {count:5} guesses, estimate {estimate:.3f}, kept {kept:.3f}")


def print_speeds(by_method: dict[Method, dict[str, float]]) -> None:
    """Speed by category, and what hindsight would have added."""
    print(f"{'category':<16}" + "".join(f"{method:>10}" for method in by_method))
    for category in by_method["counts"]:
        values = [by_method[method][category] for method in by_method]
        print(f"{category:<16}" + "".join(f"{value:10.3f}" for value in values))
    best = by_method["hindsight"]["overall"]
    for method, speed in by_method.items():
        print(f"regret of {method}: {1 - speed['overall'] / best:.3f}")


if __name__ == "__main__":
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    main(sys.argv[1:])
