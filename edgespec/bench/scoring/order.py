"""How much of one sequence is in another one, in the same order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def share_in_order(
    expected: Sequence[Item], given: Sequence[Item], likeness: Callable[[Item, Item], float]
) -> float:
    """The best alignment that keeps the order, per item of the longer sequence; 0 without any.

    `likeness` goes from 0 to 1, so that 1 comes of equal sequences only.

    >>> share_in_order("abcd", "abd", lambda one, other: float(one == other))
    0.75
    """
    best = [0.0] * (len(given) + 1)  # of the items so far with given[:index]
    for item in expected:
        before, best = best, [0.0]
        for index, other in enumerate(given):
            both = before[index] + likeness(item, other)
            best.append(max(both, before[index + 1], best[index]))
    return best[-1] / max(len(expected), len(given), 1)
