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

from edgespec.engine.decoding import Limits
from edgespec.engine.engine import NUM_AHEAD, Engine
from edgespec.engine.tally import Tally
from edgespec.errors import Cancelled, NativeLibraryError
from edgespec.estimates.acceptance import Acceptance
from edgespec.passes import Guesses, Kept, Part, PassRecord, Proposal, Stretch
from edgespec.planning.cost import CostModel, CostTable
from edgespec.planning.growth import Outcome
from edgespec.planning.planner import Planner
from edgespec.protocols import Drafter, Matcher, PromptCache, Quote, Sampler, Target
from edgespec.types import NO_TEMPLATE_VALUES, TARGET, EncodedPrompt, Message, TemplateValues

_NUM_TABLED = 1024
"""Different rows of logits that a pseudo-model of one vocabulary knows."""


class FakeTarget:
    """Implements `edgespec.protocols.Target`: `texts` are the cached tokens of each slot.

    `passes` are the rows of each pass that has exact rows. `on_pass`, called before each pass with
    its tokens, may abort or raise. A pass that fails leaves none of its tokens behind, and nothing
    at all where nothing can be taken back.
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
        num_slots: int = 1,
        max_branches: int = 8,
    ) -> None:
        self.num_vocab = num_vocab
        self.num_context = num_context
        self.max_rows = max_rows
        self.can_roll_back = can_roll_back
        self.num_batch = num_batch
        self.num_slots = num_slots
        self.max_branches = max_branches
        self.reads_alike = True
        self.texts: list[list[int]] = [[] for _ in range(num_slots)]
        self.passes: list[tuple[int, ...]] = []
        self.on_pass: Callable[[Sequence[int]], None] = lambda _tokens: None
        self._order = order
        self._rows: list[NDArray[np.float32]] = []
        self._drafted: dict[int, Part] = {}
        self._aborted = False

    @property
    def cells(self) -> list[int]:
        """What the first slot holds."""
        return self.texts[0]

    def num_cached(self, slot: int) -> int:
        assert slot not in self._drafted, "a draft is to be kept or dropped first"
        return len(self.texts[slot])

    def score(self, parts: Sequence[Part]) -> None:
        self._check(parts)
        self._rows = []
        tokens = [token for part in parts for token in (*part.tokens, *part.draft.tokens)]
        try:
            self.on_pass(tokens)
            if self._aborted:
                raise Cancelled
        except BaseException:
            if not self.can_roll_back:
                self.texts[parts[0].slot].clear()
            raise
        if len(tokens) <= self.max_rows:
            self.passes.append(tuple(tokens))
        for part in parts:
            text = self.texts[part.slot]
            text.extend(part.tokens)
            self._rows.append(self._logits_after(text))
            for node in range(len(part.draft)):
                path = [part.draft.tokens[each] for each in part.draft.path_to(node)]
                self._rows.append(self._logits_after([*text, *path]))
            self._drafted[part.slot] = part

    def keep(self, slot: int, path: Sequence[int]) -> None:
        draft = self._drafted.pop(slot).draft
        for node, parent in zip(path, (-1, *path), strict=False):
            assert draft.parents[node] == parent, f"{path} is no path"
        for place, node in enumerate(path):
            if node != place:  # a sibling's cell is out of order
                break
            self.texts[slot].append(draft.tokens[node])

    def logits(self, row: int) -> NDArray[np.float32]:
        assert 0 <= row < len(self._rows), f"row {row} of a pass over {len(self._rows)}"
        return self._rows[row]

    def hidden_state(self, row: int) -> NDArray[np.float32]:
        return self.logits(row)[:2]

    def truncate(self, slot: int, num_tokens: int) -> None:
        assert slot not in self._drafted, "a draft is to be kept or dropped first"
        assert num_tokens >= 0, f"truncate to {num_tokens}"
        if num_tokens < len(self.texts[slot]):
            del self.texts[slot][num_tokens if self.can_roll_back else 0 :]

    def save(self, slot: int) -> tuple[Stretch, ...]:
        text = self.texts[slot]
        parts = [text[start : start + 8] for start in range(0, len(text), 8)]
        return tuple(Stretch(len(part), bytes(part)) for part in parts)

    def restore(self, slot: int, stretches: Sequence[Stretch]) -> None:
        assert not self.texts[slot], "only an empty slot is restored"
        tokens = [token for stretch in stretches for token in stretch.data]
        assert len(tokens) == sum(stretch.num_tokens for stretch in stretches)
        if sum(map(len, self.texts)) + len(tokens) > self.num_context:
            raise NativeLibraryError("no place in the KV cache")
        self.texts[slot].extend(tokens)

    def abort(self) -> None:
        self._aborted = True

    def resume(self) -> None:
        self._aborted = False

    def _check(self, parts: Sequence[Part]) -> None:
        assert parts, "a pass needs a row at least"
        assert not self._drafted, "the last drafts are to be kept or dropped first"
        assert len({part.slot for part in parts}) == len(parts), "two parts for one slot"
        num_rows = sum(map(len, parts))
        is_exact = len(parts) > 1 or len(parts[0].draft) > 0
        assert num_rows <= (self.max_rows if is_exact else self.num_batch), f"{num_rows} rows"
        num_cells = sum(map(len, self.texts)) + num_rows
        assert num_cells <= self.num_context, "no place in the KV cache"
        for part in parts:
            assert part.tokens, "a part scores a token at least"
            tokens = (*part.tokens, *part.draft.tokens)
            assert all(0 <= token < self.num_vocab for token in tokens), f"unknown token: {tokens}"

    def next_token(self, text: Sequence[int]) -> int:
        """What greedy decoding says after `text`."""
        return int(self._logits_after(text).argmax())

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

    matcher: Matcher | None = None

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

    matcher: Matcher | None = None

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

    `guess` gets all tokens of the conversation. `text` is that of the last session as it was told,
    `learned` what sessions were told of their guesses, `num_pulled` how many were asked for.
    """

    name = "fake"

    def __init__(
        self,
        guess: Callable[[Sequence[int]], Iterable[Proposal]] = lambda _text: (),
        cost_ms: float = 0.0,
        name: str = "fake",
    ) -> None:
        self.name = name
        self.guess = guess
        self.quote = Quote(cost_ms)
        self.text: list[int] = []
        self.learned: list[tuple[tuple[Proposal, ...], tuple[int, ...]]] = []
        self.num_pulled = 0
        self.num_open = 0

    def open(
        self, prompt: EncodedPrompt, said: Sequence[int] = (), _matcher: Matcher | None = None
    ) -> FakeSession:
        self.num_open += 1
        return FakeSession(self, [*prompt.tokens, *said])


class FakeSession:
    """Implements `edgespec.protocols.DraftSession` for `FakeDrafter`."""

    bridge_ms = 0.0

    def __init__(self, drafter: FakeDrafter, text: list[int]) -> None:
        self._drafter = drafter
        self._text = drafter.text = text
        self._pulled: list[Proposal] = []
        self._is_open = True

    @property
    def quote(self) -> Quote:
        return self._drafter.quote

    def propose(self, prefix: Sequence[int] = ()) -> Iterator[Proposal]:
        assert self._is_open, "a session that is closed is asked no more"
        asked_at = len(self._text)
        self._pulled = []
        for proposal in self._drafter.guess((*self._text, *prefix)):
            assert len(self._text) == asked_at, "a draft is valid until the next learn"
            self._drafter.num_pulled += 1
            self._pulled.append(proposal)
            yield proposal

    def learn(self, kept: Kept) -> None:
        assert self._is_open, "a session that is closed learns no more"
        for proposals, tokens in kept.guesses_of(self._drafter.name):
            self._drafter.learned.append((proposals, tokens))
        self._text.extend(kept.tokens)
        self._pulled = []

    def close(self) -> None:
        assert self._is_open, "a session is closed once"
        self._is_open = False
        self._drafter.num_open -= 1


def told(tokens: Iterable[int], *guesses: Guesses, name: str = "fake") -> Kept:
    """What sessions are told of a pass: its tokens, and what the drafter `name` had guessed."""
    said = tuple(tokens)
    record = PassRecord(len(said), len(said), 0, target_ms=1.0)
    return Kept(said, (TARGET,) * len(said), tuple(range(len(said))), record, {name: guesses})


def judged(proposals: Iterable[Proposal], tokens: Iterable[int], name: str, start: int = 0) -> Kept:
    """The same, where the drafter had guessed one run, from place `start` of the draft on."""
    return told(tokens, Guesses(start, tuple(proposals)), name=name)


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
    target: FakeTarget,
    drafter: Drafter | None = None,
    costs: CostModel | None = None,
    ends: frozenset[int] = frozenset(),
    clock: Callable[[], float] | None = None,
    prompts: PromptCache | None = None,
    num_ahead: int = NUM_AHEAD,
) -> Engine:
    """An engine over fakes; by default nothing is drafted, and drafting would pay."""
    ticking = clock or FakeClock()
    planner = Planner([drafter or FakeDrafter()], costs or flat_costs(), ticking)
    return Engine(target, planner, ends.__contains__, ticking, prompts, num_ahead)


_SIXTEEN_TOKENS = Limits(max_tokens=16)


def run(
    engine: Engine,
    prompt: Sequence[int],
    sampler: Sampler | None = None,
    limits: Limits = _SIXTEEN_TOKENS,
) -> Iterator[Kept]:
    """What each pass gives one answer, from its beginning to its end."""
    decoding = engine.open(EncodedPrompt(tuple(prompt)), sampler or FakeSampler(), limits)
    try:
        while not decoding.is_over:
            [(_, kept)] = engine.step([decoding])
            yield kept
            if kept.error is not None:
                raise kept.error
    finally:
        engine.close(decoding)


def collect(
    engine: Engine,
    prompt: Sequence[int],
    sampler: Sampler | None = None,
    limits: Limits = _SIXTEEN_TOKENS,
    tally: Tally | None = None,
) -> list[tuple[int, ...]]:
    """The tokens of each pass of one answer."""
    passes = []
    for kept in run(engine, prompt, sampler, limits):
        if tally is not None:
            tally.take(kept)
        if kept.tokens:
            passes.append(kept.tokens)
    return passes


def joined(passes: Iterable[Sequence[int]]) -> list[int]:
    """The tokens of all passes, in order."""
    return [token for tokens in passes for token in tokens]


_ROLE_TOKENS = {"system": 1, "user": 2, "assistant": 3, "tool": 4}


class TinyBridge:
    """Implements `edgespec.protocols.TextBridge`: a token is one of `pieces`, token 0 ends a turn.

    Its texts are made of a, b, c, spaces and é (other letters are read as a), and are cut greedily
    into the longest pieces. A message becomes its role's token, its text and the end token; the
    assistant's role token closes the prompt.
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
        data, tokens = "".join(c if c in "abc \u00e9" else "a" for c in text).encode(), []
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

    def tokenize(
        self, text: str, *, add_special: bool = False, parse_special: bool = False
    ) -> list[int]:
        return self.encode(text)

    def render_chat(
        self,
        messages: Sequence[Message],
        *,
        continue_final_message: bool = False,
        template: TemplateValues = NO_TEMPLATE_VALUES,
    ) -> str:
        tokens = self.encode_chat(messages, continue_final_message=continue_final_message)
        return b"".join(self.pieces[token] for token in tokens).decode()

    def encode_chat(
        self,
        messages: Sequence[Message],
        *,
        continue_final_message: bool = False,
        template: TemplateValues = NO_TEMPLATE_VALUES,
    ) -> list[int]:
        tokens: list[int] = []
        for message in messages:
            tokens += [_ROLE_TOKENS[message.role], *self.encode(message.content), self.END]
        return tokens[:-1] if continue_final_message else [*tokens, _ROLE_TOKENS["assistant"]]

    def piece(self, token: int, *, special: bool = False) -> bytes:
        if not 0 <= token < self.num_vocab:
            raise ValueError(f"no token {token}")
        return self.pieces[token] if special or token >= self.num_first else b""

    def is_end(self, token: int) -> bool:
        return token == self.END


def note_judged(calibration: Acceptance) -> list[bool]:
    """From now on, which of the guesses that it learns from were right."""
    rights: list[bool] = []
    observe = calibration.observe

    def note(kind: int, kept: bool) -> None:
        rights.append(kept)
        observe(kind, kept)

    calibration.observe = note  # type: ignore[method-assign]
    return rights


def best_length(acceptance: Sequence[float], costs_ms: Sequence[float]) -> int:
    """The number of guesses that a plan verifies which cost nothing and have these estimates."""
    outcome = Outcome(costs_ms, num_answers=1, num_rows=1)
    reach = 1.0
    for estimate in acceptance[: len(costs_ms) - 1]:
        reach *= estimate
        outcome.add(reach)
    return outcome.best_added
