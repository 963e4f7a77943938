"""Which draft to verify, and how much of it: the one objective behind every drafter.

Verifying the first k guesses, whose acceptance estimates are a1, a2, ... (each given that those
before were kept), emits on average

    E(k) = 1 + a1 + a1*a2 + ... + a1*...*ak

tokens and costs the drafting so far plus T(k + 1). The plan is the k with the largest E(k) per
millisecond, 0 included. The draft grows token by token. At each place every drafter may be asked
what comes next, given the draft so far: look-ups always, since they cost nothing; a drafter that
costs time only where what it usually gets right (`Drafter.outlook`) promises more than the best
known. The likeliest guess is taken, whoever made it, so sources follow one another within a draft.

A draft must promise MIN_GAIN over plain decoding, because the estimates are never exact and a wrong
"yes" costs more than a wrong "no".

>>> costs = [10.0, 12.0, 13.0]   # T(1), T(2), T(3)
>>> best_length([0.5, 0.5], costs)
2
>>> best_length([0.1, 0.1], costs)
0
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from edgespec.protocols import Drafter
from edgespec.types import EMPTY_DRAFT, Draft, Proposal

MIN_GAIN = 1.05
"""A draft is verified only if its expected speed is this many times that of plain decoding."""


@dataclass(frozen=True, slots=True)
class Pulled:
    """Guesses of one drafter, one following the other, from draft position `start` on."""

    drafter: Drafter
    start: int
    proposals: tuple[Proposal, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """The draft to verify, and everything that was pulled to choose it.

    `speed_without` is the speed in tokens per millisecond that was expected without the drafters
    that cost time, when the first of them was asked; None if none was.
    """

    draft: Draft
    pulled: tuple[Pulled, ...]
    speed_without: float | None = None


EMPTY_PLAN = Plan(EMPTY_DRAFT, ())


def plan(drafters: Sequence[Drafter], costs_ms: Sequence[float]) -> Plan:
    """Pull from `drafters` while it pays and choose how many guesses to verify.

    `costs_ms[r - 1]` is T(r); its length bounds the draft. Drafters without cost are asked for the
    first guess even where no draft could pay: they learn from it.
    """
    outcome = _Outcome(costs_ms)
    lanes = [_Lane(drafter) for drafter in drafters]
    tokens: list[int] = []
    chosen: list[tuple[Proposal, str]] = []
    while outcome.has_room or not chosen:
        found = _next_guess(lanes, tokens, outcome)
        if found is None or not outcome.has_room:
            break
        chosen.append(found)
        tokens.append(found[0].token)
        outcome.add(found[0].acceptance)
        for lane in lanes:
            lane.advance(found[0].token, len(tokens))
    kept = chosen[: outcome.best_length]
    draft = Draft(
        tuple(guess.token for guess, _ in kept),
        tuple(range(-1, len(kept) - 1)),
        tuple(guess.acceptance for guess, _ in kept),
        tuple(source for _, source in kept),
    )
    pulled = itertools.chain.from_iterable(lane.pulled() for lane in lanes)
    return Plan(draft, tuple(pulled), outcome.speed_without)


def _next_guess(
    lanes: Sequence[_Lane], tokens: Sequence[int], outcome: _Outcome
) -> tuple[Proposal, str] | None:
    """The likeliest guess of what follows `tokens`, with its source; None if none may pay."""
    best: tuple[Proposal, str] | None = None
    likely = -1.0
    for lane in sorted(lanes, key=lambda lane: lane.drafter.cost_ms):
        drafter = lane.drafter
        if drafter.cost_ms == 0:
            worth = not tokens or outcome.bound(1.0) > outcome.best_speed
        else:
            rest = outcome.bound(drafter.outlook, drafter.cost_ms)
            without = outcome.bound(likely) if best else 0.0
            worth = rest > max(outcome.best_speed, without)
            if worth:
                outcome.ask(without)
        if worth and (guess := lane.peek(tokens, outcome)) and guess.acceptance > likely:
            best, likely = (guess, drafter.name), guess.acceptance
    return best


class _Outcome:
    """What the draft so far is expected to give, and which of its lengths was best."""

    def __init__(self, costs_ms: Sequence[float]) -> None:
        self._costs_ms = costs_ms
        self._length = 0
        self._expected = 1.0
        self._reach = 1.0
        self.spent_ms = 0.0
        self.best_length = 0
        self.best_speed = MIN_GAIN / costs_ms[0]
        self.speed_without: float | None = None

    @property
    def has_room(self) -> bool:
        return self._length + 1 < len(self._costs_ms)

    def ask(self, speed: float) -> None:
        """A drafter that costs time is asked; a free guess at this place promises `speed`."""
        if self.speed_without is None:
            known = self.best_speed if self.best_length else 1.0 / self._costs_ms[0]
            self.speed_without = max(known, speed)

    def add(self, acceptance: float) -> None:
        """Append a guess with this estimate."""
        self._length += 1
        self._reach *= acceptance
        self._expected += self._reach
        speed = self._expected / (self.spent_ms + self._costs_ms[self._length])
        if speed > self.best_speed:
            self.best_length, self.best_speed = self._length, speed

    def bound(self, acceptance: float, cost_ms: float = 0.0) -> float:
        """Speed of the best longer draft if each further guess had this estimate and cost."""
        best, expected, reach, spent = 0.0, self._expected, self._reach, self.spent_ms
        for cost in self._costs_ms[self._length + 1 :]:
            reach *= acceptance
            expected += reach
            spent += cost_ms
            best = max(best, expected / (spent + cost))
        return best


@dataclass(slots=True)
class _Lane:
    """One drafter while the draft grows: its guesses as long as the draft follows them."""

    drafter: Drafter
    _start: int = 0
    _guesses: list[Proposal] = field(default_factory=list)
    _iterator: Iterator[Proposal] | None = None
    _num_followed: int = 0
    _finished: list[Pulled] = field(default_factory=list)

    def peek(self, tokens: Sequence[int], outcome: _Outcome) -> Proposal | None:
        """What the drafter says after `tokens`; asks it, at its cost, unless it has said so."""
        if self._iterator is None:
            self._start = len(tokens)
            self._iterator = self.drafter.propose(tokens)
        if self._num_followed == len(self._guesses):
            guess = next(self._iterator, None)
            if guess is None:
                return None
            self._guesses.append(guess)
            outcome.spent_ms += self.drafter.cost_ms
        return self._guesses[self._num_followed]

    def advance(self, token: int, length: int) -> None:
        """The draft grew by `token` to `length`; guesses that say otherwise end here."""
        said = self._guesses[self._num_followed :]
        if said and said[0].token == token:
            self._num_followed += 1
        elif self._iterator is not None:
            self._finish()

    def pulled(self) -> list[Pulled]:
        """All that the drafter said."""
        self._finish()
        return self._finished

    def _finish(self) -> None:
        if self._guesses:
            self._finished.append(Pulled(self.drafter, self._start, tuple(self._guesses)))
        self._guesses, self._iterator, self._num_followed = [], None, 0


def best_length(acceptance: Sequence[float], costs_ms: Sequence[float]) -> int:
    """The k that `plan` chooses for free guesses with these estimates."""
    return len(plan([_Given(acceptance)], costs_ms).draft)


@dataclass(frozen=True, slots=True)
class _Given:
    """A drafter of guesses that are known beforehand."""

    _acceptance: Sequence[float]
    name: str = "given"
    cost_ms: float = 0.0
    start_ms: float = 0.0
    fertility: float = 1.0
    outlook: float = 1.0

    def begin(self, prompt: Sequence[int]) -> None:
        """Nothing to prepare."""

    def propose(self, prefix: Sequence[int] = ()) -> Iterator[Proposal]:
        """Yield what was given."""
        return (Proposal(0, estimate) for estimate in self._acceptance[len(prefix) :])

    def learn(self, proposals: Sequence[Proposal], kept: Sequence[int]) -> None:
        """Nothing to learn."""

    def extend(self, tokens: Sequence[int]) -> None:
        """Nothing to remember."""
