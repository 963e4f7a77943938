"""What drafting may still lose: one budget for each drafter that costs time.

A balance in milliseconds. Guesses that pay lose nearly as often as they win, so one that begins
with little is soon given up by chance, and then for long (bench/LOG.md, a good drafter's ruin): it
begins with several passes, since a drafter is there because it was weighed. Every pass adds a small
share of its time. A pass for which the drafter was asked adds what it saved: the time that its
tokens would have taken without it, less the time that drafting and the pass really took; mostly
wrong guesses save less than nothing. So one that gains is always asked, and one that loses spends
its balance and then no more than the share, whatever its estimates promise. Once its hour comes,
one good draft pays for several more.

What it saves beyond the most that a balance holds is put by. An answer whose kind it does not know
may spend the balance, and takes nothing from the next, which may be of a kind that it knows: that
one begins with several passes again, for as long as there is something put by.

Reading a prompt may cost more than there is balance, and pays only over many passes. Neither what
it will save nor how long the answer goes on is known, but an answer that has gone on will as a rule
go on as long; a drafter saves less where it has few words for the text (`Quote.fertility`), and
where there is much to read, since look-ups draft there as well. So reading, of so many plain
passes, waits until

    (GAIN - 0.3 log2(fertility) - 0.05 (log2(1 + passes) - 1)) x tokens to come  >=  MARGIN x passes

and where several answers share the passes, so many times that, since all of them wait for it; it is
then owed in whole without keeping the drafter from being asked in this answer: it is spent.
What it did not earn back counts from the next answer on.

>>> budgets = Budgets(lambda: 30.0)
>>> account = budgets.open("model", max_tokens=512)
>>> account.allows(Quote(guess_ms=4.0, start_ms=60.0))     # two passes, for 16 tokens to come
False
>>> account = budgets.open("model", max_tokens=512, num_tokens=30)
>>> account.allows(Quote(guess_ms=4.0, start_ms=60.0))     # for 46
True
"""

from __future__ import annotations

import math
from collections.abc import Callable

from edgespec.protocols import Quote

SHARE = 0.015
"""Share of all time that may go into a drafter that gains nothing."""

FIRST_PASSES = 4.0
"""Balance to begin with, in plain passes: what a drafter that is no good may lose."""

MOST_PASSES = 8.0
"""Most balance, in plain passes: what a drafter that was good may lose when it is not any more."""

MOST_RESERVE = 60.0
"""Most that is put by, in plain passes: what fifteen answers of other kinds may lose."""

MARGIN = 2.0
"""Reading must promise so many times its cost: it is spent for certain, what it earns is not."""

GAIN = 0.15
"""What drafts save for each token, in plain passes, of a text that takes a pass to read."""

FEW_TOKENS = 16
"""An answer of no tokens is expected to have so many; one that has more, as many again besides."""

MOST_LATE = 2.0
"""A pass that took more than so many times what was expected, or lost more than so many times what
it and reading cost, was disturbed by others; unless the one before lost as much."""


class Budgets:
    """The budgets of all drafters that cost time."""

    def __init__(self, plain_ms: Callable[[], float]) -> None:
        """`plain_ms` tells what a plain pass takes, as far as is known by then."""
        self._plain_ms = plain_ms
        self._budgets: dict[str, Budget] = {}

    def open(self, name: str, max_tokens: int, num_tokens: int = 0) -> Account:
        """What a drafter may spend on an answer of at most so many tokens; some may be there."""
        budget = self._budgets.setdefault(name, Budget(self._plain_ms))
        budget.draw()
        return Account(budget, max_tokens, num_tokens)

    def balance_ms(self, name: str) -> float | None:
        """What a drafter has left, what is put by aside; None for one that followed no answer."""
        budget = self._budgets.get(name)
        return budget.balance_ms if budget is not None else None


class Budget:
    """What one drafter has left, over one answer after the other."""

    def __init__(self, plain_ms: Callable[[], float]) -> None:
        """Begin with FIRST_PASSES."""
        self._plain_ms = plain_ms
        self.balance_ms = FIRST_PASSES * plain_ms()
        self._reserve_ms = 0.0
        self._last_saved_ms = 0.0

    @property
    def plain_ms(self) -> float:
        """What a plain pass takes."""
        return self._plain_ms()

    def add(self, ms: float) -> None:
        """Take in what was earned, or lost if below 0; what there is too much of is put by."""
        plain_ms, balance_ms = self.plain_ms, self.balance_ms + ms
        self.balance_ms = min(balance_ms, MOST_PASSES * plain_ms)
        surplus_ms = balance_ms - self.balance_ms
        self._reserve_ms = min(self._reserve_ms + surplus_ms, MOST_RESERVE * plain_ms)

    def draw(self) -> None:
        """Begin an answer with FIRST_PASSES, as far as what was put by suffices."""
        lacking_ms = FIRST_PASSES * self.plain_ms - self.balance_ms
        drawn_ms = min(max(lacking_ms, 0.0), self._reserve_ms)
        self.balance_ms += drawn_ms
        self._reserve_ms -= drawn_ms

    def without_outlier(self, saved_ms: float, most_lost_ms: float) -> float:
        """What a pass saved; a larger loss is believed only as far as the last one was as large."""
        believed = max(saved_ms, min(-most_lost_ms, self._last_saved_ms))
        self._last_saved_ms = saved_ms
        return believed


class Account:
    """A drafter's budget in one answer."""

    def __init__(self, budget: Budget, max_tokens: int, num_tokens: int) -> None:
        """Use `Budgets.open`."""
        self._budget = budget
        self._max_tokens = max_tokens
        self._num_tokens = num_tokens
        self._read_ms = 0.0
        self._was_asked = False

    @property
    def balance_ms(self) -> float:
        """What guesses of one draft may cost, reading left aside."""
        return self._budget.balance_ms + self._read_ms

    def allows(self, quote: Quote, num_answers: int = 1) -> bool:
        """Whether a guess may be asked for; what costs nothing always may.

        So many answers share the pass that it is for: all of them wait for the drafter.
        """
        if not quote.guess_ms:
            return True
        if self.balance_ms < min(quote.guess_ms, MOST_PASSES * self._budget.plain_ms):
            return False
        return self._was_asked or self._pays(quote, num_answers)

    def settle(
        self,
        num_emitted: int,
        pass_ms: float,
        total_ms: float,
        total_emitted: float,
        start_ms: float | None = None,
        speed_without: float | None = None,
    ) -> None:
        """A pass is over; the last two are None if the drafter was not asked for it.

        `pass_ms` is this answer's share of the pass. `total_ms`, drafting included, and
        `total_emitted` are those of all answers that shared it, divided among those that the
        drafter was asked for; `speed_without` is what all would have had without this drafter, in
        tokens per millisecond.
        """
        earned = SHARE * pass_ms
        if start_ms is not None and speed_without is not None:
            saved = total_emitted / speed_without - total_ms
            earned += self._budget.without_outlier(saved, MOST_LATE * (pass_ms + start_ms))
            if not self._was_asked:
                self._read_ms, self._was_asked = start_ms, True
        self._budget.add(earned)
        self._num_tokens += num_emitted

    def _pays(self, quote: Quote, num_answers: int) -> bool:
        """Whether reading now is expected to be earned back, by this answer for all."""
        num_passes = quote.start_ms / self._budget.plain_ms
        to_come = min(self._max_tokens - self._num_tokens, FEW_TOKENS + self._num_tokens)
        slow = 0.3 * math.log2(quote.fertility) + 0.05 * (math.log2(1.0 + num_passes) - 1.0)
        return (GAIN - slow) * to_come >= MARGIN * num_passes * num_answers
