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

from edgespec.engine.engine import Engine, Limits
from edgespec.engine.tally import Tally
from edgespec.llama.bridge import ModelBridge
from edgespec.llama.context import Context, ContextOptions
from edgespec.llama.model import Model
from edgespec.llama.sampler import SamplerChain
from edgespec.llama.target import LlamaTarget
from edgespec.llama.tiny import TinySpec
from edgespec.llama.tiny.corpus import CORPUS
from edgespec.passes import Proposal
from edgespec.planning.cost import CostModel, CostTable
from edgespec.protocols import Drafter
from edgespec.types import SamplingParams

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
        target.score([token])
        rows.append(target.logits(0).copy())
    return rows


def rows_in_one_pass(target: LlamaTarget, tokens: Sequence[int]) -> list[NDArray[np.float32]]:
    """Append `tokens` in one pass; the logits after each."""
    target.score(tokens)
    return [target.logits(row).copy() for row in range(len(tokens))]


def invariant_rows(context: Context, lengths: Sequence[int]) -> int:
    """Most rows of one pass, after any of `lengths` tokens, that equal single rows bit by bit.

    The context is left empty.
    """
    target = LlamaTarget(context, MOST_ROWS)
    tokens = corpus_tokens(context.model, max(lengths) + MOST_ROWS)
    most = MOST_ROWS
    for length in lengths:
        target.truncate(0)
        target.prefill(tokens[:length])
        alone = rows_one_by_one(target, tokens[length : length + MOST_ROWS])
        for count in range(2, most + 1):
            target.truncate(length)
            together = rows_in_one_pass(target, tokens[length : length + count])
            if not all(map(np.array_equal, together, alone)):
                most = count - 1
                break
    target.truncate(0)
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
    cost_ms = start_ms = 0.0
    outlook = fertility = 1.0

    def __init__(self, answer: Sequence[int], num_vocab: int) -> None:
        self._answer = answer
        self._num_vocab = num_vocab
        self._num_prompt = self._num_text = 0

    def begin(self, prompt: Sequence[int]) -> None:
        self._num_prompt = self._num_text = len(prompt)

    def propose(self, prefix: Sequence[int] = ()) -> Iterator[Proposal]:
        start = self._num_text - self._num_prompt + len(prefix)
        for index, token in enumerate(self._answer[start:], start):
            wrong = index % 3 == 2
            yield Proposal((token + 1) % self._num_vocab if wrong else token, 1.0)

    def learn(self, proposals: Sequence[Proposal], kept: Sequence[int]) -> None:
        """Nothing to learn."""

    def extend(self, tokens: Sequence[int]) -> None:
        self._num_text += len(tokens)


def eager_engine(target: LlamaTarget, drafter: Drafter) -> Engine:
    """An engine that drafts whatever it can: drafts look free, and its clock stands still."""
    costs = {1: 10.0, MOST_ROWS: 10.1}
    return Engine(target, [drafter], CostModel(CostTable(0, 1024, costs, costs), MOST_ROWS), _still)


def _still() -> float:
    return 1.0


@dataclass
class Answered:
    """One answer, and the counts of how it came about."""

    tokens: list[int]
    logits: list[NDArray[np.float32]]
    proposed: int
    accepted: int


def answer(
    target: LlamaTarget,
    drafter: Drafter,
    prompt: Sequence[int],
    sampling: SamplingParams,
    num_tokens: int,
    *,
    until_end: bool = False,
) -> Answered:
    """Answer with a fresh engine and chain, from an empty cache."""
    target.truncate(0)
    return next_answer(
        eager_engine(target, drafter), prompt, sampling, num_tokens, until_end=until_end
    )


def next_answer(
    engine: Engine,
    prompt: Sequence[int],
    sampling: SamplingParams,
    num_tokens: int,
    *,
    until_end: bool = False,
) -> Answered:
    """Answer with an engine that may hold some of the prompt."""
    target = engine.target
    assert isinstance(target, LlamaTarget)
    vocab = target.context.model.vocab
    logits: list[NDArray[np.float32]] = []

    def keep_logits(token: int, row: int) -> bool:
        logits.append(target.logits(row).copy())
        return until_end and vocab.is_end(token)

    tally = Tally(_still)
    with SamplerChain(sampling, vocab) as sampler:
        passes = engine.generate(prompt, sampler, Limits(num_tokens), keep_logits, tally)
        tokens = list(itertools.chain.from_iterable(passes))
    stats = tally.stats()
    return Answered(tokens, logits, stats.proposed, stats.accepted)
