"""What drafting may still lose: a drafter that costs time is asked only as long as it has credit.

An account in milliseconds. Every pass adds a small share of its time. A pass for which the drafter
was asked adds what it saved: the time that its tokens would have taken without it, less the time
that drafting and the pass did take; mostly wrong guesses save less than nothing. So one that gains
is always asked, and one that loses spends its credit and then no more than the share, whatever
its estimates promise. Once its hour comes, one good draft pays for several more.

Reading a long prompt costs more than there may be credit, and is worth it only over many passes.
Whether it is, `engine/prospect.py` tells. It is owed in whole, and does not keep the drafter from
being asked in this answer: it is spent. What it did not earn back counts from the next answer on.

>>> credit = Credit(most_ms=90.0)
>>> credit.begin(max_tokens=128)
>>> credit.allows(cost_ms=4.0, start_ms=100.0)
True
>>> credit.open(Bill(pass_ms=30.0, drafting_ms=104.0, start_ms=100.0, speed_without=1 / 30.0))
>>> credit.settle(1)                            # it read, and was wrong
>>> credit.allows(cost_ms=4.0, start_ms=0.0)
True
>>> credit.begin(max_tokens=128)                # the next answer
>>> credit.allows(cost_ms=4.0, start_ms=0.0)
False
"""

from __future__ import annotations

from dataclasses import dataclass

from edgespec.planning.prospect import Prospect

SHARE = 0.02
"""Share of all time that may go into a drafter that gains nothing."""

MOST_PASSES = 4.0
"""Most credit, in plain passes: what a drafter that was good may lose when it is not any more."""

_MOST_LOST = 2.0
"""A pass that lost more than so many times what it and reading cost was disturbed by others."""


@dataclass(frozen=True, slots=True)
class Bill:
    """What one pass costs, and what would have been without the drafters that cost time.

    `start_ms` is the part of `drafting_ms` that went into reading what was said before.
    `speed_without`, in tokens per millisecond, is None where none of them was asked.
    """

    pass_ms: float
    drafting_ms: float = 0.0
    start_ms: float = 0.0
    speed_without: float | None = None


class Credit:
    """The account, over one answer after the other."""

    def __init__(self, most_ms: float, prospect: Prospect | None = None) -> None:
        """Begin with as much as it may ever hold; without a `prospect` any prompt is read."""
        self._prospect = prospect
        self._most_ms = most_ms
        self._ms = most_ms
        self._read_ms = 0.0
        self._bill: Bill | None = None

    def begin(self, max_tokens: int) -> None:
        """Another answer: what reading the last prompt did not earn back is owed from now on."""
        self._read_ms = 0.0
        self._bill = None
        if self._prospect is not None:
            self._prospect.begin(max_tokens)

    def allows(self, cost_ms: float, start_ms: float, fertility: float = 1.0) -> bool:
        """Whether a guess that costs `cost_ms`, after `start_ms` of reading, may be asked for.

        What costs nothing always may. `fertility` is `Drafter.fertility`.
        """
        if not cost_ms:
            return True
        if self._ms + self._read_ms < min(cost_ms, self._most_ms):
            return False
        return self._prospect is None or self._prospect.pays(start_ms, fertility)

    def open(self, bill: Bill) -> None:
        """Note what the pass to come costs."""
        self._bill = bill

    def settle(self, num_emitted: int) -> None:
        """Take in what the pass gave; a pass that nobody made a bill for is no matter of drafts."""
        bill, self._bill = self._bill, None
        if bill is not None:
            earned = SHARE * bill.pass_ms
            if bill.speed_without is not None:
                saved = num_emitted / bill.speed_without - bill.drafting_ms - bill.pass_ms
                saved = max(saved, -_MOST_LOST * (bill.pass_ms + bill.start_ms))
                earned += saved
                self._read_ms += bill.start_ms
                if self._prospect is not None:
                    self._prospect.asked(saved + bill.start_ms)
            self._ms = min(self._ms + earned, self._most_ms)
        if self._prospect is not None:
            self._prospect.emitted(num_emitted)

    def end(self, *, ended: bool) -> None:
        """The answer is over: the target `ended` it, or a limit cut it."""
        if self._prospect is not None:
            self._prospect.end(ended=ended)
