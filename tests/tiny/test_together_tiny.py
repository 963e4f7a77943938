"""Several answers in one engine over llama.cpp itself: the bytes of each are those of it alone.

The models are tiny and random, and the caches so small that slots are moved together; each answer
has a second turn, for which its slot is cut.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rigs import EXACT, SMALL, OpenModel, corpus_tokens, invariant_rows
from tiny_models import Architecture, VocabularyKind
from together import Bench, FreeingTarget, Known, Talk, Turn, eager_engine, num_differing

from edgespec.drafters.context import ContextDrafter
from edgespec.engine.decoding import Decoding, Limits
from edgespec.errors import Cancelled
from edgespec.llama.context import Context
from edgespec.llama.model import Model
from edgespec.llama.sampler import SamplerChain
from edgespec.llama.target import LlamaTarget, num_sequences
from edgespec.machine.probe import USUAL
from edgespec.machine.reading import ReadingTrial, reads_alike
from edgespec.pauses import Abortable
from edgespec.protocols import Drafter
from edgespec.types import EncodedPrompt, SamplingParams

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


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_text_that_is_read_in_pieces_is_read_alike(
    open_model: OpenModel, architecture: Architecture
) -> None:
    """On the build that `make setup` makes: so prompts are read beside the answers of others."""
    spec = dataclasses.replace(SMALL, architecture=architecture, sliding_window=48)
    assert reads_alike(open_model(spec), USUAL, num_threads=2)


@dataclass(frozen=True)
class Arrival:
    """A question after `wait` more steps, and when it is cancelled, if it is."""

    wait: int
    start: int
    length: int
    max_tokens: int
    temperature: float
    cancelled_after: int | None


ARRIVALS = st.builds(
    Arrival,
    wait=st.integers(0, 12),
    start=st.integers(0, 60),
    length=st.integers(1, 40) | st.integers(100, 180),
    max_tokens=st.integers(1, 50),
    temperature=st.sampled_from([0.0, 0.8]),
    cancelled_after=st.none() | st.integers(0, 20),
)
SLOTS, FEW_AHEAD, SMALL_BATCH = 4, 12, 64


class Interleaved:
    """One engine with four slots, and answers of engines of their own to compare with."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.bench = bench_of(model)
        self.tokens = corpus_tokens(model, 260)
        self.known: dict[Arrival, Turn] = {}

    def run(self, arrivals: list[Arrival]) -> None:
        options = dataclasses.replace(
            CELLS, num_batch=SMALL_BATCH, num_sequences=num_sequences(SLOTS)
        )
        with Context(self.model, options) as context:
            target = LlamaTarget(context, self.bench.max_rows, SLOTS)
            target.prove_reading(reads_alike=True)
            engine = eager_engine(target, [ContextDrafter()], trees=False, num_ahead=FEW_AHEAD)
            waiting, running = list(arrivals), dict[Decoding, tuple[Arrival, Turn]]()
            step = last = 0
            while waiting or running:
                step += 1
                while waiting and (step - last >= waiting[0].wait or not running):
                    prompt, limits = self.prompt_of(waiting[0]), Limits(waiting[0].max_tokens)
                    if not engine.has_room(EncodedPrompt(prompt), limits):
                        break
                    arrival, last = waiting.pop(0), step
                    sampler = SamplerChain(sampling_of(arrival), self.model.vocab)
                    decoding = engine.open(EncodedPrompt(prompt), sampler, limits)
                    running[decoding] = arrival, Turn(prompt)
                for decoding, kept in engine.step(list(running)):
                    running[decoding][1].take(kept)
                for decoding, (arrival, turn) in list(running.items()):
                    is_cancelled = decoding.num_emitted >= (arrival.cancelled_after or 99)
                    if decoding.is_over or is_cancelled:
                        engine.close(decoding)
                        decoding.sampler.close()
                        del running[decoding]
                        self.compare(arrival, turn)

    def prompt_of(self, arrival: Arrival) -> tuple[int, ...]:
        return tuple(self.tokens[arrival.start : arrival.start + arrival.length])

    def compare(self, arrival: Arrival, turn: Turn) -> None:
        alone = dataclasses.replace(arrival, wait=0, cancelled_after=None)
        if alone not in self.known:
            talk = Talk(self.prompt_of(arrival), arrival.max_tokens)
            [[self.known[alone]]] = self.bench.alone([talk], sampling_of(arrival))
        expected, count = self.known[alone], len(turn.tokens)
        assert turn.tokens == expected.tokens[:count]
        assert turn.rows == expected.rows[:count]
        assert arrival.cancelled_after is not None or count == len(expected.tokens)


def sampling_of(arrival: Arrival) -> SamplingParams:
    return SamplingParams(temperature=arrival.temperature, seed=arrival.start)


@pytest.mark.parametrize("architecture", ("qwen2", "gemma3"))
def test_whatever_comes_and_goes_each_answer_is_as_if_it_were_alone(
    open_model: OpenModel, monkeypatch: pytest.MonkeyPatch, architecture: Architecture
) -> None:
    """Prompts are read beside answers, a few tokens a pass; answers are put aside for others."""
    spec = dataclasses.replace(SMALL, architecture=architecture, sliding_window=48)
    interleaved = Interleaved(open_model(spec))
    moved = count_moves(monkeypatch)

    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(ARRIVALS, min_size=2, max_size=9))
    def interleave(arrivals: list[Arrival]) -> None:
        interleaved.run(arrivals)

    interleave()
    assert moved


def test_a_step_that_was_interrupted_is_repeated(open_model: OpenModel) -> None:
    """Idle work is: the verdict is that of an undisturbed trial."""
    trial = ReadingTrial(open_model(SMALL), USUAL, num_threads=2)
    verdict = None
    while verdict is None:
        with pytest.raises(Cancelled):
            trial.step(Interrupting())
        verdict = trial.step()
    assert verdict


class Interrupting:
    """Implements `edgespec.pauses.Pause`: somebody asks as soon as anything is computed."""

    def __call__(self) -> None:
        """Nothing yet."""

    @contextlib.contextmanager
    def aborting(self, computing: Abortable) -> Iterator[None]:
        computing.abort()
        yield
