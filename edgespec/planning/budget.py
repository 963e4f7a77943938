"""What drafting may still lose: one budget for each drafter that costs time.

A balance in milliseconds. Every pass adds a small share of its time. A pass for which the drafter
was asked adds what it saved: the time that its tokens would have taken without it, less the time
that drafting and the pass really took; mostly wrong guesses save less than nothing. So one that
gains is always asked, and one that loses spends its balance and then no more than the share,
whatever its estimates promise. Once its hour comes, one good draft pays for several more.

Reading a long prompt costs more than there may be balance, and pays only over many passes. It waits
until

    saving for each token  x  tokens still to come  >=  MARGIN  x  cost of reading

and is then owed in whole without keeping the drafter from being asked in this answer: it is spent.
What it did not earn back counts from the next answer on.

>>> budgets = Budgets(lambda: 22.5)
>>> account = budgets.open("model", max_tokens=512)
>>> account.allows(Quote(guess_ms=4.0, start_ms=60.0))
True
>>> account.settle(1, pass_ms=22.5, total_ms=122.5, total_emitted=1, start_ms=60.0,
...     speed_without=1 / 22.5)                  # it read, guessed for 40 ms, and was wrong
>>> account.allows(Quote(guess_ms=4.0))
True
>>> budgets.open("model", max_tokens=512).allows(Quote(guess_ms=4.0))    # the next answer
False
"""

from __future__ import annotations

from collections.abc import Callable

from edgespec.planning.earnings import Gains, Lengths
from edgespec.protocols import Quote

SHARE = 0.02
"""Share of all time that may go into a drafter that gains nothing."""

MOST_PASSES = 4.0
"""Most balance, in plain passes: what a drafter that was good may lose when it is not any more."""

MARGIN = 2.0
"""Reading must promise so many times its cost: it is spent for certain, what it earns is not."""

_MOST_LOST = 2.0
"""A pass that lost more than so many times what it and reading cost was disturbed by others, unless
the one before lost as much."""


class Budgets:
    """The budgets of all drafters that cost time, and how long answers go on."""

    def __init__(self, plain_ms: Callable[[], float]) -> None:
        """`plain_ms` tells what a plain pass takes, as far as is known by then."""
        self._plain_ms = plain_ms
        self.lengths = Lengths()
        self._budgets: dict[str, Budget] = {}

    def open(self, name: str, max_tokens: int, num_tokens: int = 0) -> Account:
        """What a drafter may spend on an answer of at most so many tokens; some may be there."""
        budget = self._budgets.setdefault(name, Budget(self._plain_ms))
        return Account(budget, self.lengths, max_tokens, num_tokens)


class Budget:
    """What one drafter has left, over one answer after the other, and what it usually saves."""

    def __init__(self, plain_ms: Callable[[], float]) -> None:
        """Begin with as much as it may ever hold."""
        self._plain_ms = plain_ms
        self.balance_ms = self.most_ms
        self.gains = Gains()
        self._last_saved_ms = 0.0

    @property
    def plain_ms(self) -> float:
        """What a plain pass takes."""
        return self._plain_ms()

    @property
    def most_ms(self) -> float:
        """The most that it may hold."""
        return MOST_PASSES * self.plain_ms

    def add(self, ms: float) -> None:
        """Take in what was earned, or lost if below 0."""
        self.balance_ms = min(self.balance_ms + ms, self.most_ms)

    def without_outlier(self, saved_ms: float, most_lost_ms: float) -> float:
        """What a pass saved; a larger loss is believed only as far as the last one was as large."""
        believed = max(saved_ms, min(-most_lost_ms, self._last_saved_ms))
        self._last_saved_ms = saved_ms
        return believed


class Account:
    """A drafter's budget in one answer."""

    def __init__(self, budget: Budget, lengths: Lengths, max_tokens: int, num_tokens: int) -> None:
        """Use `Budgets.open`."""
        self._budget = budget
        self._lengths = lengths
        self._max_tokens = max_tokens
        self._num_tokens = num_tokens
        self._num_before: int | None = None  # tokens when the drafter was first asked
        self._read_ms = 0.0
        self._saved_ms = 0.0  # but for what reading took
        self._fertility, self._num_passes = 1.0, 0.0

    def allows(self, quote: Quote) -> bool:
        """Whether a guess may be asked for; what costs nothing always may."""
        if not quote.guess_ms:
            return True
        budget = self._budget
        if budget.balance_ms + self._read_ms < min(quote.guess_ms, budget.most_ms):
            return False
        return self._num_before is not None or self._pays(quote)

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
            saved = self._budget.without_outlier(saved, _MOST_LOST * (pass_ms + start_ms))
            earned += saved
            self._read_ms += start_ms
            self._saved_ms += saved + start_ms
            if self._num_before is None:
                self._num_before = self._num_tokens
        self._budget.add(earned)
        self._num_tokens += num_emitted

    def close(self) -> None:
        """The answer is over."""
        gains = self._budget.gains
        gains.fade()
        if self._num_before is not None and self._num_tokens > self._num_before:
            num_tokens = self._num_tokens - self._num_before
            share = self._saved_ms / num_tokens / self._budget.plain_ms
            gains.observe(self._fertility, self._num_passes, share, num_tokens)

    def _pays(self, quote: Quote) -> bool:
        """Whether reading now is expected to be earned back."""
        plain_ms = self._budget.plain_ms
        self._fertility, self._num_passes = quote.fertility, quote.start_ms / plain_ms
        to_come = self._lengths.expected(self._num_tokens, self._max_tokens - self._num_tokens)
        gain = self._budget.gains.expected(quote.fertility, self._num_passes)
        return gain * plain_ms * to_come >= MARGIN * quote.start_ms
