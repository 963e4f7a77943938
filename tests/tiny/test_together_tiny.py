"""Several answers in one engine over llama.cpp itself: the bytes of each are those of it alone.

The models are tiny and random, and the caches so small that slots are moved together; each answer
has a second turn, for which its slot is cut.
"""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from rigs import EXACT, SMALL, OpenModel, corpus_tokens, invariant_rows
from tiny_models import Architecture, VocabularyKind
from together import Bench, FreeingTarget, Known, Talk, num_differing

from edgespec.llama.context import Context
from edgespec.llama.model import Model
from edgespec.protocols import Drafter
from edgespec.types import SamplingParams

CELLS = dataclasses.replace(EXACT, num_context=512)
SAMPLINGS = (SamplingParams(), SamplingParams(temperature=0.8, seed=7))
ARCHITECTURES: tuple[Architecture, ...] = ("llama", "qwen2", "qwen3", "gemma3")
KINDS: tuple[VocabularyKind, ...] = ("bpe", "spm")


def bench_of(model: Model) -> Bench:
    with Context(model, CELLS) as context:
        rows = invariant_rows(context, (30, 200))
    assert rows >= 2
    return Bench(model, CELLS, rows)


def talks_of(model: Model) -> list[Talk]:
    tokens = corpus_tokens(model, 200)
    return [
        Talk(tuple(tokens[start : start + length]), 24 + 2 * number, tuple(tokens[start:][:6]))
        for number, (start, length) in enumerate(((0, 30), (40, 45), (90, 20), (120, 37)))
    ]


def count_moves(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The slots that were moved, as they are."""
    moved: list[int] = []
    load_state = Context.load_state

    def counted(self: Context, state: bytes, sequence: int = 0) -> None:
        moved.append(sequence)
        load_state(self, state, sequence)

    monkeypatch.setattr(Context, "load_state", counted)
    return moved


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_answer_is_as_if_it_were_alone(
    open_model: OpenModel,
    monkeypatch: pytest.MonkeyPatch,
    architecture: Architecture,
    kind: VocabularyKind,
) -> None:
    spec = dataclasses.replace(SMALL, architecture=architecture, vocabulary=kind, sliding_window=48)
    bench = bench_of(open_model(spec))
    talks = talks_of(bench.model)
    moved = count_moves(monkeypatch)
    for sampling in SAMPLINGS:
        alone = bench.alone(talks, sampling)
        known = Known(itertools.chain.from_iterable(alone))
        for num_slots, in_turns, trees in itertools.product((2, 4), (False, True), (False, True)):
            together = bench.together(
                talks, sampling, [known], num_slots=num_slots, in_turns=in_turns, trees=trees
            )
            case = f"{num_slots} slots, in turns: {in_turns}, trees: {trees}, {sampling}"
            assert num_differing(alone, together) == 0, case
            assert sum(turn.num_accepted for turns in together for turn in turns) > 0, case
    assert moved, "slots are moved together"


def test_cells_that_are_freed_at_once_change_bits(open_model: OpenModel) -> None:
    """Why `LlamaTarget` frees cells at the end only; and that these tests see it."""
    bench = bench_of(open_model(SMALL))
    talks = talks_of(bench.model)
    alone = bench.alone(talks, SAMPLINGS[0])
    drafters: list[Drafter] = [Known(itertools.chain.from_iterable(alone))]
    together = bench.together(
        talks, SAMPLINGS[0], drafters, num_slots=4, in_turns=True, layout=FreeingTarget
    )
    assert num_differing(alone, together) > 0
