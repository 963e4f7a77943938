"""The decode loop: propose, plan, score, verify, keep, emit. Token ids only, no I/O.

Invariant between answers and between passes: the target's cache holds the tokens of the
conversation except the last one, whatever was drafted. Plain and speculative decoding leave the
same cache behind, so the next turn starts from the same state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from edgespec.engine.tally import Tally
from edgespec.engine.verify import TokenHook, verify
from edgespec.errors import UsageError
from edgespec.planning.cost import CostModel
from edgespec.planning.credit import MOST_PASSES, Bill, Credit
from edgespec.planning.planner import EMPTY_PLAN, Plan, plan
from edgespec.planning.prospect import Prospect
from edgespec.protocols import Drafter, RowWatcher, Sampler, Target


@dataclass(frozen=True, slots=True)
class Limits:
    """When an answer ends, and whether it may be drafted."""

    max_tokens: int
    speculate: bool = True
    reuse_prefix: bool = True


class Engine:
    """One target, its drafters, one conversation at a time."""

    def __init__(
        self,
        target: Target,
        drafters: Sequence[Drafter],
        costs: CostModel,
        clock: Callable[[], float],
        watchers: Sequence[RowWatcher] = (),
        credit: Credit | None = None,
    ) -> None:
        """`clock` returns seconds; it must be monotonic. Without drafters it decodes plainly.

        `watchers` are shown the target's logits behind all that it says. `credit` limits what
        drafting may lose, if not to the usual.
        """
        self._target = target
        self._drafters = tuple(drafters)
        self._costs = costs
        self._clock = clock
        self._watchers = tuple(watchers)
        plain_ms = costs.pass_ms(1, 0)
        self._credit = credit or Credit(MOST_PASSES * plain_ms, Prospect(plain_ms))
        self._cached: list[int] = []  # the tokens whose keys and values the cache holds

    @property
    def target(self) -> Target:
        """The target that this engine decodes with."""
        return self._target

    def generate(
        self,
        prompt: Sequence[int],
        sampler: Sampler,
        limits: Limits,
        is_last: TokenHook,
        tally: Tally,
    ) -> Iterator[tuple[int, ...]]:
        """Yield the tokens that each pass emits, until `is_last`, a limit or a full cache.

        Raises Cancelled when the target is aborted; what was emitted before stays cached.
        """
        text = list(prompt)
        end = min(len(text) + limits.max_tokens, self._target.num_context)
        self._prefill(text, limits, tally)
        drafters = self._drafters if limits.speculate else ()
        for drafter in drafters:
            drafter.begin(text)
        sampler.begin(text)
        self._credit.begin(end - len(text))
        chosen = EMPTY_PLAN
        while True:
            verified = verify(self._target, sampler, chosen.draft, is_last)
            for watcher in self._watchers:
                watcher.watch(verified.tokens, self._target)
            self._keep(text, chosen, verified.tokens, drafters)
            tally.verified(chosen.draft, len(verified.tokens))
            yield verified.tokens
            if verified.ended or len(text) >= end:
                self._credit.end(ended=verified.ended)
                return
            chosen = self._plan(text, end, drafters)
            self._score(text, chosen)

    def forget(self) -> None:
        """Drop the cache, so that the next prompt is prefilled whole."""
        self._target.truncate(0)
        self._cached = []

    def plain_token_ms(self) -> float:
        """Measured cost of one plain token at the present context length, in milliseconds."""
        return self._costs.pass_ms(1, self._target.num_cached)

    def _prefill(self, text: list[int], limits: Limits, tally: Tally) -> None:
        """Bring the cache to `text`, its last token scored; reuse what it shares with the cache."""
        if not text:
            raise UsageError("the prompt is empty", "give at least one word")
        shared = _common_prefix(self._cached, text[:-1]) if limits.reuse_prefix else 0
        self._target.truncate(shared)
        start = self._target.num_cached
        try:
            self._target.prefill(text[start:])
        finally:
            self._cached = text[: self._target.num_cached]
        tally.prefilled(len(text), start)

    def _plan(self, text: list[int], end: int, drafters: Sequence[Drafter]) -> Plan:
        """Choose the draft for the next pass; it never emits beyond `end` tokens of text.

        A target that cannot forget a wrong guess gets none.
        """
        rows = min(self._target.max_rows, end - len(text), self._costs.max_rows)
        if rows < 2 or not drafters or not self._target.can_roll_back:
            return EMPTY_PLAN
        curve = self._costs.curve_ms(len(text) - 1)[:rows].tolist()
        able = [each for each in drafters if self._may_ask(each)]
        start_ms = sum(drafter.start_ms for drafter in able)
        started = self._clock()
        chosen = plan(able, curve)
        drafting_ms = (self._clock() - started) * 1e3
        self._credit.open(
            Bill(curve[len(chosen.draft)], drafting_ms, start_ms, chosen.speed_without)
        )
        return chosen

    def _may_ask(self, drafter: Drafter) -> bool:
        """Whether there is credit, and something to be gained."""
        if not drafter.cost_ms:
            return True
        return self._credit.allows(drafter.cost_ms, drafter.start_ms, drafter.fertility)

    def _score(self, text: list[int], chosen: Plan) -> None:
        """One target pass: row 0 is the last kept token, row i is draft token i - 1."""
        rows = [text[-1], *chosen.draft.tokens]
        started = self._clock()
        self._target.score(rows)
        self._costs.observe(len(rows), len(text) - 1, (self._clock() - started) * 1e3)

    def _keep(
        self,
        text: list[int],
        chosen: Plan,
        emitted: tuple[int, ...],
        drafters: Sequence[Drafter],
    ) -> None:
        """Append what was emitted and drop the rest of the draft; the drafters learn from both.

        Cached before: text plus the draft. Kept: text plus all emitted tokens but the last, which
        no pass has read yet.
        """
        text.extend(emitted)
        self._credit.settle(len(emitted))
        self._target.truncate(len(text) - 1)
        self._cached = text[:-1]
        for pulled in chosen.pulled:
            if pulled.start < len(emitted):  # all draft tokens before it were kept
                pulled.drafter.learn(pulled.proposals, emitted[pulled.start :])
        for drafter in drafters:
            drafter.extend(emitted)


def _common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Length of the longest common prefix."""
    length = min(len(left), len(right))
    for index in range(length):
        if left[index] != right[index]:
            return index
    return length
