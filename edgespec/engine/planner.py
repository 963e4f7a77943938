"""How many draft tokens to verify: the one objective behind every drafter.

Verifying the first k guesses, whose acceptance estimates are a1, a2, ... (each given that those
before were kept), emits on average

    E(k) = 1 + a1 + a1*a2 + ... + a1*...*ak

tokens and costs the drafting so far plus T(k + 1). The plan is the k with the largest E(k) per
millisecond, 0 included. Guesses are pulled one at a time: after each, the best that any longer
draft could reach is bounded from above, and drafting stops when that is no better than the best
known.

A draft must promise MIN_GAIN over plain decoding, because the estimates are never exact and a wrong
"yes" costs more than a wrong "no".

>>> costs = [10.0, 12.0, 13.0]   # T(1), T(2), T(3)
>>> best_length([0.5, 0.5], costs)
2
>>> best_length([0.1, 0.1], costs)
0
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgespec.types import EMPTY_DRAFT, Draft, Proposal

MIN_GAIN = 1.2
"""A draft is verified only if its expected speed is this many times that of plain decoding."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The draft to verify, and every proposal that was pulled to choose it."""

    draft: Draft
    pulled: tuple[Proposal, ...]


EMPTY_PLAN = Plan(EMPTY_DRAFT, ())


def plan(
    proposals: Iterator[Proposal], source: str, costs_ms: Sequence[float], cost_ms: float = 0.0
) -> Plan:
    """Pull from `proposals` while it pays and choose how many to verify.

    `costs_ms[r - 1]` is T(r); its length bounds the draft. `cost_ms` is the time to pull one more.
    The first proposal is pulled even where no draft could pay, if it is free: the drafter learns
    from it.
    """
    pulled: list[Proposal] = []
    best_length, best_speed = 0, MIN_GAIN / costs_ms[0]
    expected, reach, spent = 1.0, 1.0, 0.0
    while _worth_pulling(costs_ms, len(pulled), expected, reach, spent, cost_ms, best_speed) or (
        not pulled and cost_ms == 0
    ):
        proposal = next(proposals, None)
        if proposal is None:
            break
        pulled.append(proposal)
        spent += cost_ms
        reach *= proposal.acceptance
        expected += reach
        if len(pulled) >= len(costs_ms):
            break
        speed = expected / (spent + costs_ms[len(pulled)])
        if speed > best_speed:
            best_length, best_speed = len(pulled), speed
    chosen = pulled[:best_length]
    draft = Draft.chain(tuple(p.token for p in chosen), tuple(p.acceptance for p in chosen), source)
    return Plan(draft, tuple(pulled))


def best_length(acceptance: Sequence[float], costs_ms: Sequence[float]) -> int:
    """The k that `plan` chooses for free guesses with these estimates."""
    guesses = (Proposal(0, estimate) for estimate in acceptance)
    return len(plan(guesses, "", costs_ms).draft)


def _worth_pulling(
    costs_ms: Sequence[float],
    num_pulled: int,
    expected: float,
    reach: float,
    spent: float,
    cost_ms: float,
    best_speed: float,
) -> bool:
    """True if some longer draft could still beat `best_speed`, were every further guess right."""
    for more in range(1, len(costs_ms) - num_pulled):
        bound = (expected + reach * more) / (spent + cost_ms * more + costs_ms[num_pulled + more])
        if bound > best_speed:
            return True
    return False
