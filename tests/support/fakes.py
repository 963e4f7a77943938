"""A target, samplers, drafters and a text bridge without weights, for tests in milliseconds.

`FakeTarget` is a pseudo-model: the logits after a token are a hash of the last few tokens in its
cache, so whatever the cache holds wrongly shows in what is said next. It refuses every call that a
real KV cache could not serve.
"""

from __future__ import annotations

import random
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from edgespec.engine.engine import Engine, Limits
from edgespec.engine.tally import Tally
from edgespec.errors import Cancelled
from edgespec.passes import Proposal
from edgespec.planning.cost import CostModel, CostTable
from edgespec.protocols import Drafter, Sampler, Target
from edgespec.types import Message

_NUM_TABLED = 1024
"""Different rows of logits that a pseudo-model of one vocabulary knows."""


class FakeTarget:
    """Implements `edgespec.protocols.Target`: `cells` are the cached tokens, `passes` the calls.

    `on_pass`, called before each batch of a pass with its tokens, may abort or raise. A pass that
    fails leaves none of its tokens behind, and nothing at all where the cache cannot roll back.
    """

    def __init__(
        self,
        *,
        num_vocab: int = 6,
        num_context: int = 64,
        max_rows: int = 4,
        can_roll_back: bool = True,
        order: int = 2,
        num_batch: int = 8,
    ) -> None:
        self.num_vocab = num_vocab
        self.num_context = num_context
        self.max_rows = max_rows
        self.can_roll_back = can_roll_back
        self.cells: list[int] = []
        self.passes: list[tuple[int, ...]] = []
        self.num_prefilled = 0
        self.on_pass: Callable[[Sequence[int]], None] = lambda _tokens: None
        self._order = order
        self._num_batch = num_batch
        self._rows: list[NDArray[np.float32]] = []
        self._aborted = False

    @property
    def num_cached(self) -> int:
        return len(self.cells)

    def prefill(self, tokens: Sequence[int]) -> None:
        assert tokens, "a prefill needs at least one token"
        for start in range(0, len(tokens), self._num_batch):
            batch = tokens[start : start + self._num_batch]
            self._append(batch)
            self.num_prefilled += len(batch)
            self._rows = self._rows[-1:]

    def score(self, tokens: Sequence[int]) -> None:
        assert 1 <= len(tokens) <= self.max_rows, f"{len(tokens)} rows in a pass"
        self._append(tokens)
        self.passes.append(tuple(tokens))

    def logits(self, row: int) -> NDArray[np.float32]:
        assert 0 <= row < len(self._rows), f"row {row} of a pass over {len(self._rows)}"
        return self._rows[row]

    def truncate(self, num_tokens: int) -> None:
        assert num_tokens >= 0, f"truncate to {num_tokens}"
        if num_tokens < len(self.cells):
            del self.cells[num_tokens if self.can_roll_back else 0 :]

    def abort(self) -> None:
        self._aborted = True

    def resume(self) -> None:
        self._aborted = False

    def next_token(self, text: Sequence[int]) -> int:
        """What greedy decoding says after `text`."""
        return int(self._logits_after(text).argmax())

    def _append(self, tokens: Sequence[int]) -> None:
        assert len(self.cells) + len(tokens) <= self.num_context, "no place in the KV cache"
        assert all(0 <= token < self.num_vocab for token in tokens), f"unknown token in {tokens}"
        self._rows = []
        try:
            self.on_pass(tokens)
            if self._aborted:
                raise Cancelled
        except BaseException:
            if not self.can_roll_back:
                self.cells.clear()
            raise
        for token in tokens:
            self.cells.append(token)
            self._rows.append(self._logits_after(self.cells))

    def _logits_after(self, text: Sequence[int]) -> NDArray[np.float32]:
        digest = zlib.crc32(array("i", text[-self._order :]).tobytes())
        row: NDArray[np.float32] = _table(self.num_vocab)[digest % _NUM_TABLED]
        return row


@cache
def _table(num_vocab: int) -> NDArray[np.float32]:
    stream = np.random.default_rng(num_vocab)
    rows = (2 * stream.standard_normal((_NUM_TABLED, num_vocab))).astype(np.float32)
    rows.flags.writeable = False
    return rows


class FakeSampler:
    """Draws from the target's logits with its own random stream and a penalty on what it saw.

    Temperature 0 is greedy. `seen` is everything that the chain was advanced by.
    """

    def __init__(self, temperature: float = 0.0, seed: int = 0, penalty: float = 0.0) -> None:
        self._temperature = temperature
        self._penalty = penalty
        self._random = random.Random(seed)
        self.seen: list[int] = []
        self.rows: list[int] = []
        self.closed = False

    def begin(self, prompt: Sequence[int]) -> None:
        assert not self.seen, "begin is for the start of an answer"
        self.seen.extend(prompt)

    def sample(self, target: Target, row: int) -> int:
        logits = target.logits(row).astype(np.float64)
        for token in self.seen[-4:]:
            logits[token] -= self._penalty
        if self._temperature == 0:
            token = int(logits.argmax())
        else:
            weights = np.exp((logits - logits.max()) / self._temperature)
            token = self._random.choices(range(len(weights)), weights.tolist())[0]
        self.seen.append(token)
        self.rows.append(row)
        return token

    def close(self) -> None:
        self.closed = True

    @property
    def state(self) -> object:
        """Equal for two chains that saw the same and drew as often."""
        return self.seen, self._random.getstate()


class ScriptedSampler:
    """Says what it was told to, and notes the rows that it was asked for."""

    def __init__(self, script: Sequence[int]) -> None:
        self._script = iter(script)
        self.rows: list[int] = []
        self.closed = False

    def begin(self, prompt: Sequence[int]) -> None:
        """Nothing to look back at."""

    def sample(self, target: Target, row: int) -> int:
        target.logits(row)
        self.rows.append(row)
        return next(self._script)

    def close(self) -> None:
        self.closed = True


class FakeDrafter:
    """Proposes what `guess` yields for the text so far, and checks the order of the calls.

    `guess` gets all tokens of the conversation. `text` is that conversation as the drafter was told
    it, `learned` what it was told of its proposals, `num_pulled` how many it was asked for.
    """

    name = "fake"

    def __init__(
        self,
        guess: Callable[[Sequence[int]], Iterable[Proposal]] = lambda _text: (),
        cost_ms: float = 0.0,
    ) -> None:
        self.cost_ms = cost_ms
        self.outlook = 1.0
        self.start_ms = 0.0
        self.fertility = 1.0
        self.text: list[int] = []
        self.learned: list[tuple[tuple[Proposal, ...], tuple[int, ...]]] = []
        self.num_pulled = 0
        self._guess = guess
        self._pulled: list[Proposal] = []

    def begin(self, prompt: Sequence[int]) -> None:
        self.text = list(prompt)
        self._pulled = []

    def propose(self, prefix: Sequence[int] = ()) -> Iterator[Proposal]:
        asked_at = len(self.text)
        self._pulled = []
        for proposal in self._guess((*self.text, *prefix)):
            assert len(self.text) == asked_at, "a draft is valid until the next extend"
            self.num_pulled += 1
            self._pulled.append(proposal)
            yield proposal

    def learn(self, proposals: Sequence[Proposal], kept: Sequence[int]) -> None:
        assert list(proposals) == self._pulled
        self.learned.append((tuple(proposals), tuple(kept)))
        self._pulled = []

    def extend(self, tokens: Sequence[int]) -> None:
        self.text.extend(tokens)


def certain(tokens: Iterable[int]) -> Iterator[Proposal]:
    """Proposals that are sure of themselves."""
    return (Proposal(token, 1.0) for token in tokens)


def oracle(target: FakeTarget) -> Callable[[Sequence[int]], Iterator[Proposal]]:
    """Guesses what greedy decoding of `target` says, for ever."""

    def guess(text: Sequence[int]) -> Iterator[Proposal]:
        known = list(text)
        while True:
            known.append(target.next_token(known))
            yield Proposal(known[-1], 1.0)

    return guess


def flat_costs(max_rows: int = 16, one_ms: float = 10.0, more_ms: float = 0.1) -> CostModel:
    """Costs at which any hopeful draft pays."""
    costs = {1: one_ms, max_rows + 1: one_ms + more_ms * max_rows}
    return CostModel(CostTable(8, 64, costs, costs), max_rows)


class FakeClock:
    """Seconds that pass by one `tick` a look."""

    def __init__(self, tick: float = 0.001) -> None:
        self._now = 1.0
        self._tick = tick

    def __call__(self) -> float:
        self._now += self._tick
        return self._now

    def pass_by(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds


def make_engine(
    target: FakeTarget, drafter: Drafter | None = None, costs: CostModel | None = None
) -> Engine:
    """An engine over fakes; by default nothing is drafted, and drafting would pay."""
    return Engine(target, [drafter or FakeDrafter()], costs or flat_costs(), FakeClock())


_SIXTEEN_TOKENS = Limits(max_tokens=16)


def collect(
    engine: Engine,
    prompt: Sequence[int],
    sampler: Sampler | None = None,
    limits: Limits = _SIXTEEN_TOKENS,
    ends: frozenset[int] = frozenset(),
    tally: Tally | None = None,
) -> list[tuple[int, ...]]:
    """The tokens of each pass of one answer, which ends after a token of `ends`."""
    chosen_sampler = sampler or FakeSampler()
    chosen_tally = tally or Tally(FakeClock())
    hook = _hook(ends)
    return list(engine.generate(prompt, chosen_sampler, limits, hook, chosen_tally))


def _hook(ends: frozenset[int]) -> Callable[[int, int], bool]:
    return lambda token, _row: token in ends


def joined(passes: Iterable[Sequence[int]]) -> list[int]:
    """The tokens of all passes, in order."""
    return [token for tokens in passes for token in tokens]


_ROLE_TOKENS = {"system": 1, "user": 2, "assistant": 3, "tool": 4}


class TinyBridge:
    """Implements `edgespec.protocols.TextBridge`: a token is one of `pieces`, token 0 ends a turn.

    Its texts are made of a, b, c, spaces and é, and are cut greedily into the longest pieces. A
    message becomes its role's token, its text and the end token; the assistant's role token closes
    the prompt.
    """

    END = 0

    def __init__(self) -> None:
        special = (b"<end>", b"<sys>", b"<usr>", b"<ast>", b"<tool>")
        self.pieces = (*special, b"a", b"b", b"c", b" ", b"ab", b"\xc3", b"\xa9")
        self.num_first = len(special)

    @property
    def num_vocab(self) -> int:
        return len(self.pieces)

    def encode(self, text: str) -> list[int]:
        data, tokens = text.encode(), []
        while data:
            token = max(
                (
                    i
                    for i in range(self.num_first, self.num_vocab)
                    if data.startswith(self.pieces[i])
                ),
                key=lambda i: len(self.pieces[i]),
            )
            tokens.append(token)
            data = data[len(self.pieces[token]) :]
        return tokens

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        tokens: list[int] = []
        for message in messages:
            tokens += [_ROLE_TOKENS[message.role], *self.encode(message.content), self.END]
        return [*tokens, _ROLE_TOKENS["assistant"]]

    def piece(self, token: int, *, special: bool = False) -> bytes:
        return self.pieces[token] if special or token >= self.num_first else b""

    def is_end(self, token: int) -> bool:
        return token == self.END
