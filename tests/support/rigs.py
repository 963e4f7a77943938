"""Tiny models opened through the wrapper, and engines over them that speculate at every chance."""

from __future__ import annotations

import itertools
import resource
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tiny_models import TinySpec
from tiny_models.corpus import CORPUS

from edgespec.engine.completer import EngineCompleter
from edgespec.engine.decoding import Limits
from edgespec.engine.engine import Engine
from edgespec.engine.tally import Tally
from edgespec.grammar.compiler import GrammarCompiler
from edgespec.llama.bridge import ModelBridge
from edgespec.llama.context import Context, ContextOptions
from edgespec.llama.model import Model
from edgespec.llama.sampler import SamplerChain
from edgespec.llama.target import LlamaTarget
from edgespec.passes import Draft, Kept, Part, Proposal
from edgespec.planning.cost import CostModel, CostTable
from edgespec.planning.planner import Planner
from edgespec.protocols import FREE, Drafter, DraftSession, Matcher, Observer
from edgespec.types import (
    Completion,
    CompletionRequest,
    EncodedPrompt,
    SamplingParams,
    ServedModel,
)

SMALL = TinySpec(width=64, ffn_width=128, num_vocab=512, quantization="Q8_0")
"""Half a millisecond a pass, and Q8_0, whose kernels treat every row alike."""

MOST_ROWS = 8
"""Rows up to which invariance is looked for."""

OpenModel = Callable[[TinySpec], Model]
WriteModel = Callable[[TinySpec], Path]
Sabotage = Callable[[str, str], None]
"""Which children of the self-check, by their first argument, and the code that they run first."""

# With a BF16 cache for the keys one row takes the same way through attention as several do.
EXACT = ContextOptions(num_context=1024, num_threads=1, type_k="bf16", type_v="f16")


def corpus_tokens(model: Model, count: int) -> list[int]:
    """The first `count` tokens of the corpus, again and again."""
    once = ModelBridge(model).encode(CORPUS)
    return list(itertools.islice(itertools.cycle(once), count))


def rows_one_by_one(target: LlamaTarget, tokens: Sequence[int]) -> list[NDArray[np.float32]]:
    """Append `tokens` one a pass; the logits after each."""
    rows = []
    for token in tokens:
        score(target, [token])
        rows.append(target.logits(0).copy())
    return rows


def score(target: LlamaTarget, tokens: Sequence[int]) -> None:
    """Append `tokens` to the first slot in one pass with logits of every row."""
    draft = Draft.chain(tuple(tokens[1:]), (1.0,) * (len(tokens) - 1), "test")
    target.score([Part(0, tuple(tokens[:1]), draft)])
    target.keep(0, range(len(draft)))


def prefill(target: LlamaTarget, tokens: Sequence[int], slot: int = 0) -> None:
    """Append `tokens` batch by batch; row 0 of the logits is then the last one's."""
    size = target.num_batch
    for start in range(0, len(tokens), size):
        target.score([Part(slot, tuple(tokens[start : start + size]))])
        target.keep(slot, ())


def rows_in_one_pass(target: LlamaTarget, tokens: Sequence[int]) -> list[NDArray[np.float32]]:
    """Append `tokens` in one pass; the logits after each."""
    score(target, tokens)
    return [target.logits(row).copy() for row in range(len(tokens))]


def invariant_rows(context: Context, lengths: Sequence[int]) -> int:
    """Most rows of one pass, after any of `lengths` tokens, that equal single rows bit by bit.

    The context is left empty.
    """
    target = LlamaTarget(context, MOST_ROWS)
    tokens = corpus_tokens(context.model, max(lengths) + MOST_ROWS)
    most = MOST_ROWS
    for length in lengths:
        target.truncate(0, 0)
        prefill(target, tokens[:length])
        alone = rows_one_by_one(target, tokens[length : length + MOST_ROWS])
        for count in range(2, most + 1):
            target.truncate(0, length)
            together = rows_in_one_pass(target, tokens[length : length + count])
            if not all(map(np.array_equal, together, alone)):
                most = count - 1
                break
    target.truncate(0, 0)
    return most


@contextmanager
def file_size_limit(num_bytes: int) -> Iterator[None]:
    """No file can grow beyond `num_bytes`, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class Replay:
    """Implements `Drafter`: proposes a known answer, with a wrong token at every third place."""

    name = "replay"

    def __init__(self, answer: Sequence[int], num_vocab: int) -> None:
        self.answer = answer
        self.num_vocab = num_vocab

    def open(
        self, prompt: EncodedPrompt, said: Sequence[int] = (), _matcher: Matcher | None = None
    ) -> ReplaySession:
        return ReplaySession(self, len(said))


class ReplaySession:
    """Implements `DraftSession` for `Replay`."""

    quote = FREE
    bridge_ms = 0.0

    def __init__(self, replay: Replay, num_said: int) -> None:
        self._replay = replay
        self._num_said = num_said

    def propose(self, prefix: Sequence[int] = ()) -> Iterator[Proposal]:
        start = self._num_said + len(prefix)
        for index, token in enumerate(self._replay.answer[start:], start):
            wrong = index % 3 == 2
            yield Proposal((token + 1) % self._replay.num_vocab if wrong else token, 1.0)

    def learn(self, kept: Kept) -> None:
        self._num_said += len(kept.tokens)

    def close(self) -> None:
        """Nothing to let go of."""


class Asked:
    """Implements `Drafter` around another one that is asked at every chance: it looks free."""

    def __init__(self, drafter: Drafter) -> None:
        self.name = drafter.name
        self._drafter = drafter

    def open(
        self, prompt: EncodedPrompt, said: Sequence[int] = (), _matcher: Matcher | None = None
    ) -> AskedSession:
        return AskedSession(self._drafter.open(prompt, said))


class AskedSession:
    """Implements `DraftSession` for `Asked`."""

    quote = FREE
    bridge_ms = 0.0

    def __init__(self, session: DraftSession) -> None:
        self.propose = session.propose
        self.learn = session.learn
        self.close = session.close


def open_sampler(sampling: SamplingParams, model: Model) -> SamplerChain:
    """A chain, with whatever constrains it."""
    constraint = sampling.constraint
    matcher = GrammarCompiler(model.vocab).compile(constraint) if constraint else None
    return SamplerChain(sampling, model.vocab, matcher=matcher)


def eager_engine(target: LlamaTarget, *drafters: Drafter, ends: bool = False) -> Engine:
    """An engine that drafts whatever it can: drafts look free, and its clock stands still.

    Only if `ends` do end tokens end an answer.
    """
    costs = {1: 10.0, MOST_ROWS: 10.1}
    model = CostModel(CostTable(0, 1024, costs, costs), MOST_ROWS)
    is_end = target.context.model.vocab.is_end if ends else _never
    return Engine(target, Planner(drafters, model, _still), is_end, _still)


def eager_completer(
    target: LlamaTarget, *drafters: Drafter, observer: Observer | None = None
) -> EngineCompleter:
    """A completer over such an engine, which end tokens end."""
    model = target.context.model
    return EngineCompleter(
        eager_engine(target, *drafters, ends=True),
        ModelBridge(model),
        lambda sampling: open_sampler(sampling, model),
        ServedModel("tiny", "", target.num_context, 0, "tiny", "identical"),
        observer,
    )


def ask(completer: EngineCompleter, request: CompletionRequest) -> Completion:
    """The whole answer."""
    *_, last = completer.answer(request)
    assert last.completion is not None
    return last.completion


def _still() -> float:
    return 1.0


def _never(_token: int) -> bool:
    return False


@dataclass
class Answered:
    """One answer, and the counts of how it came about."""

    tokens: list[int]
    logits: list[NDArray[np.float32]]
    proposed: int
    accepted: int


def answer(
    target: LlamaTarget,
    drafter: Drafter | None,
    prompt: Sequence[int],
    sampling: SamplingParams,
    num_tokens: int,
    *,
    ends: bool = False,
) -> Answered:
    """Answer with a fresh engine and chain, from an empty cache; without a drafter plainly."""
    target.truncate(0, 0)
    drafters = [] if drafter is None else [drafter]
    engine = eager_engine(target, *drafters, ends=ends)
    return next_answer(engine, prompt, sampling, num_tokens)


def next_answer(
    engine: Engine, prompt: Sequence[int], sampling: SamplingParams, num_tokens: int
) -> Answered:
    """Answer with an engine that may hold some of the prompt."""
    target = engine.target
    assert isinstance(target, LlamaTarget)
    logits: list[NDArray[np.float32]] = []
    tokens: list[int] = []
    tally = Tally(_still)
    with open_sampler(sampling, target.context.model) as sampler:
        decoding = engine.open(EncodedPrompt(tuple(prompt)), sampler, Limits(num_tokens))
        while not decoding.is_over:
            [(_, kept)] = engine.step([decoding])
            if kept.error is not None:
                raise kept.error
            tally.take(kept)
            tokens += kept.tokens
            logits += [kept.logits(index).copy() for index in range(len(kept.tokens))]
        engine.close(decoding)
    stats = tally.stats()
    return Answered(tokens, logits, stats.proposed, stats.accepted)
