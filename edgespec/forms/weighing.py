"""What one drafted token costs here, and how often a drafter says what targets said.

Costs of several drafters are measured in turns, because machines drift: a round drafts a few tokens
with each, and the least of the rounds counts. Agreement is teacher-forced: the drafter reads
answers that a target gave and says before each token which one it would have drafted, and how sure
it is. What that is worth is found by playing it through (`expected_speed`).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from edgespec.gguf.embeddings import EmbeddingTable
from edgespec.gguf.trim import read_trim_info
from edgespec.llama.bridge import ModelBridge
from edgespec.llama.context import Context, ContextOptions
from edgespec.llama.model import Model, ModelOptions
from edgespec.pauses import NO_PAUSE, Pause
from edgespec.types import Message

NUM_CONTEXT = 128
"""Tokens in the cache when costs are measured."""

USUAL_PASS_MS: Mapping[int, float] = MappingProxyType(
    {1: 30.5, 2: 35.0, 3: 42.0, 4: 49.0, 6: 62.0, 8: 75.0, 12: 105.0, 16: 145.0}
)
"""T(r) of a target that was not measured: Qwen2.5-Coder-1.5B Q4_K_M, two cores, AVX-512 VNNI."""

PROMPT_SHARE = 2.0
"""Tokens of a prompt that are read for each that is drafted: 256 for an answer of 128."""

_PROMPT_TOKENS = 64
_NUM_ROUNDS, _TOKENS_A_ROUND = 6, 8
_MOST_S = 4.0
"""A machine that gives no two rounds in so long is too busy to be measured."""
_ROWS_A_PASS = 64


@dataclass(frozen=True, slots=True)
class TokenText:
    """A target's answer in a drafter's tokens, and what comes before it."""

    before: tuple[int, ...]
    answer: tuple[int, ...]


class OpenDrafter:
    """A drafter's file, whole or trimmed, with a context; token ids are the whole model's.

    `names[i]` is the token of row i of the head.
    """

    def __init__(
        self,
        path: Path,
        table: EmbeddingTable,
        options: ModelOptions,
        num_threads: int,
        pause: Pause = NO_PAUSE,
    ) -> None:
        """`table` is that of the whole model; `pause` may end what is computed with it.

        Raises ModelFileError, NativeLibraryError, and what `pause` raises.
        """
        info = read_trim_info(path)
        self._is_trimmed = info is not None
        self.names = np.arange(table.num_tokens) if info is None else info.kept
        self._table = table
        self._cleanup = ExitStack()
        with ExitStack() as cleanup:
            self.model = cleanup.enter_context(Model(path, options, lambda _share: pause()))
            size = ContextOptions(num_context=1024, num_threads=num_threads)
            self._context = cleanup.enter_context(Context(self.model, size))
            cleanup.enter_context(pause.aborting(self._context))
            self._cleanup = cleanup.pop_all()

    def read(self, tokens: Sequence[int], position: int, num_outputs: int = 1) -> None:
        """One pass over `tokens` at `position`, the last `num_outputs` of them with logits."""
        fed = self._table.rows(tokens) if self._is_trimmed else tokens
        self._context.decode(fed, position, num_outputs=num_outputs)

    def likeliest(self, row: int) -> int:
        """The token with the highest logit in a row of the last pass."""
        return int(self.names[np.argmax(self._context.logits(row))])

    def logits(self, row: int) -> NDArray[np.float32]:
        """Logits of a row of the last pass, one for each row of the head, a view."""
        return self._context.logits(row)

    def forget(self, start: int = 0) -> None:
        """Drop the cached tokens from position `start` on."""
        self._context.remove(start)

    def __enter__(self) -> OpenDrafter:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._cleanup.close()


@dataclass(frozen=True, slots=True)
class TokenCosts:
    """Milliseconds of a token for each drafter, the least of a few rounds.

    `spread` is by how much the second least exceeds it, at worst: near 1 unless the machine is
    busy, infinite if there was no time for two rounds.
    """

    ms: tuple[float, ...]
    spread: float


def token_costs(drafters: Sequence[OpenDrafter]) -> TokenCosts:
    """The cost of one greedily drafted token after NUM_CONTEXT tokens, for each drafter.

    All that a token takes is in it: embedding row, pass, likeliest token, and its share of reading
    the prompt (`PROMPT_SHARE`), which some types have no fast kernel for.
    """
    deadline = time.monotonic() + _MOST_S
    tokens = [token % 200 for token in range(NUM_CONTEXT)]
    for drafter in drafters:
        drafter.forget()
        drafter.read(tokens, 0)
        _draft(drafter, deadline)  # builds the graph of one row and warms the caches
    rounds: list[list[float]] = []
    while len(rounds) < _NUM_ROUNDS and time.monotonic() < deadline:
        rounds.append([_draft(drafter, deadline) for drafter in drafters])
    if len(rounds) < 2:
        return TokenCosts((math.inf,) * len(drafters), math.inf)
    by_drafter = [sorted(times) for times in zip(*rounds, strict=True)]
    spread = max((times[1] / times[0] for times in by_drafter), default=1.0)
    return TokenCosts(tuple(times[0] for times in by_drafter), spread)


def _draft(drafter: OpenDrafter, deadline: float) -> float:
    """Draft a few tokens, read a few as a prompt, take all back: milliseconds for each drafted."""
    token, position = 17, NUM_CONTEXT
    started = time.perf_counter()
    while position < NUM_CONTEXT + _TOKENS_A_ROUND:
        drafter.read([token], position)
        token = drafter.likeliest(0)
        position += 1
        if time.monotonic() > deadline:
            break
    token_ms = (time.perf_counter() - started) / (position - NUM_CONTEXT) * 1e3
    drafter.forget(NUM_CONTEXT)
    started = time.perf_counter()
    drafter.read(range(1, 1 + _PROMPT_TOKENS), NUM_CONTEXT)
    drafter.likeliest(0)  # waits for the pass
    read_ms = (time.perf_counter() - started) / _PROMPT_TOKENS * 1e3
    drafter.forget(NUM_CONTEXT)
    return token_ms + PROMPT_SHARE * read_ms


@dataclass(frozen=True, slots=True, eq=False)
class Readings:
    """What a drafter would have said in place of the tokens of one text.

    `hits` tells of each token whether the drafter says it, too, `sureness` what probability it
    gives to its own guess; both (num_tokens,).
    """

    hits: NDArray[np.bool_]
    sureness: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Heads:
    """Several trimmed heads inside of one: the first `sizes[i]` of the rows `order` make head i.

    `order` are row numbers of the open file's head, `sizes` ascend.
    """

    order: NDArray[np.int64]
    sizes: tuple[int, ...]

    def best(self, logits: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """For each head the likeliest row and its probability among the head's rows."""
        values = logits[self.order[: self.sizes[-1]]]
        starts = [0, *self.sizes[:-1]]
        weights = np.exp(values - values.max())
        totals = np.cumsum(np.add.reduceat(weights, starts))
        edges = zip(starts, self.sizes, strict=True)
        places = [start + int(np.argmax(values[start:end])) for start, end in edges]
        for index in range(1, len(places)):
            if values[places[index - 1]] >= values[places[index]]:
                places[index] = places[index - 1]
        return self.order[places], weights[places] / totals


def whole_head(drafter: OpenDrafter) -> Heads:
    """The head of an open file as it is."""
    size = len(drafter.names)
    return Heads(np.arange(size), (size,))


def read_text(drafter: OpenDrafter, text: TokenText, heads: Heads) -> list[Readings]:
    """Let a drafter read a text; what it would say with each of `heads`."""
    rows = [(drafter.names[rows], sureness) for rows, sureness in _read(drafter, text, heads)]
    guesses = np.array([guesses for guesses, _ in rows])
    sureness = np.array([sureness for _, sureness in rows], dtype=np.float32)
    said = np.array(text.answer)
    return [
        Readings(guesses[:, head] == said, sureness[:, head]) for head in range(len(heads.sizes))
    ]


def _read(
    drafter: OpenDrafter, text: TokenText, heads: Heads
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """For each token of the answer, before reading it, the likeliest rows and how sure they are."""
    drafter.forget()
    drafter.read(text.before, 0)
    yield heads.best(drafter.logits(0))
    read = text.answer[:-1]
    for start in range(0, len(read), _ROWS_A_PASS):
        tokens = read[start : start + _ROWS_A_PASS]
        drafter.read(tokens, len(text.before) + start, num_outputs=len(tokens))
        for row in range(len(tokens)):
            yield heads.best(drafter.logits(row))


def samples() -> list[tuple[str, str]]:
    """Questions and a target's greedy answers: chat, code, mathematics, languages, data."""
    file = resources.files("edgespec.forms").joinpath("data/samples.jsonl")
    lines = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    return [(line["prompt"], line["answer"]) for line in lines]


def samples_of(model: Model) -> tuple[TokenText, ...]:
    """The samples in the tokens of a whole model, through its own template."""
    bridge = ModelBridge(model)
    return tuple(
        TokenText(
            tuple(bridge.encode_chat([Message("user", prompt)])),
            tuple(model.vocab.tokenize(answer.encode())),
        )
        for prompt, answer in samples()
    )


def expected_speed(
    readings: Sequence[Readings], token_ms: float, pass_ms: Mapping[int, float] = USUAL_PASS_MS
) -> float:
    """Speed against plain decoding when the texts are drafted: 1 where drafting does not pay.

    Plays the planner (docs/metrics.md, design of the planner): from each token on it drafts as many
    as maximize expected tokens per millisecond by the drafter's calibrated sureness, pays for them
    and for the pass, and keeps those up to the first miss. `pass_ms` is T(r) of the target.
    """
    if not readings:
        return 1.0
    costs = _draft_costs(token_ms, pass_ms)
    bins = _calibrated(readings)
    num_tokens, elapsed = 0, 0.0
    for text in readings:
        estimates = bins[_bin(text.sureness)]
        start = 0
        while start < len(estimates):
            chances = np.cumprod(estimates[start : start + len(costs) - 1])
            emitted = np.concatenate([[1.0], 1.0 + np.cumsum(chances)])
            length = int(np.argmax(emitted / costs[: len(emitted)]))
            misses = np.flatnonzero(~text.hits[start : start + length])
            accepted = int(misses[0]) if len(misses) else length
            elapsed += float(costs[length])
            num_tokens += accepted + 1
            start += accepted + 1
    return max(1.0, num_tokens * float(costs[0]) / elapsed) if elapsed else 1.0


def steady_speed(
    agreement: float, token_ms: float, pass_ms: Mapping[int, float] = USUAL_PASS_MS
) -> float:
    """Speed against plain decoding if every guess were right with the same probability.

    Less than `expected_speed`, which knows where a drafter is sure, and below 1 where it could
    hardly pay; needs no readings. Drafts have one token at least.
    """
    costs = _draft_costs(token_ms, pass_ms)
    emitted = np.cumsum(agreement ** np.arange(len(costs)))
    return float((emitted[1:] / costs[1:]).max(initial=0.0) * costs[0])


def _draft_costs(token_ms: float, pass_ms: Mapping[int, float]) -> NDArray[np.float64]:
    """Milliseconds of drafting and verifying 0, 1, 2, ... tokens."""
    known = sorted(pass_ms)
    costs = np.interp(range(1, known[-1] + 1), known, [pass_ms[rows] for rows in known])
    return np.asarray(costs + token_ms * np.arange(len(costs)))


_EDGES = np.array([0.2, 0.4, 0.6, 0.8, 0.9, 0.97])


def _bin(sureness: NDArray[np.float32]) -> NDArray[np.int64]:
    return np.searchsorted(_EDGES, sureness)


def _calibrated(readings: Sequence[Readings]) -> NDArray[np.float64]:
    """Share of hits by bin of sureness, a little towards one half where there are few."""
    bins = np.concatenate([_bin(text.sureness) for text in readings])
    hits = np.concatenate([text.hits for text in readings])
    size = len(_EDGES) + 1
    right = np.bincount(bins, weights=hits, minlength=size)
    return (right + 1.0) / (np.bincount(bins, minlength=size) + 2.0)
