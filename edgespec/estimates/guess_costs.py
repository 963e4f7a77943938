"""What the guesses of a drafting model take, learned in use.

Where they seem to take long, nobody asks, and nothing more is learned: so one that was disturbed by
others counts as at most twice as long as expected, and what reading takes is forgotten by and by.
"""

from __future__ import annotations

_READ_SHARE = 0.12
"""What a token takes that is read together with others, of a guess; only a start."""

_COST_RATE = 0.05
_READ_RATE = 0.3
_FORGET_RATE = 0.03
_MOST_LATE = 2.0
_MANY_TOKENS = 16  # tell what reading costs
_FEW_TOKENS = 3  # more of them read at once say nothing of what a guess costs


class GuessCosts:
    """What a drafter's guesses take, and how many of the target's tokens come of each."""

    def __init__(self, guess_ms: float) -> None:
        """Begin with the time of one guess; what reading takes is a share of it."""
        self.read_ms = guess_ms * _READ_SHARE
        self._guess_ms = guess_ms
        self._proposals_per_guess = 1.0

    @property
    def guesses_per_proposal(self) -> float:
        """Not every guess completes a token of the target, and some complete several."""
        return 1.0 / max(self._proposals_per_guess, 0.25)

    @property
    def proposal_ms(self) -> float:
        """Milliseconds until the next proposal."""
        return self._guess_ms * self.guesses_per_proposal

    def observe(self, seconds: float, num_read: int, num_proposals: int) -> None:
        """Learn from one guess after reading; one that was interrupted counts less."""
        self._proposals_per_guess += _COST_RATE * (num_proposals - self._proposals_per_guess)
        if num_read >= _MANY_TOKENS:
            read_ms = max(seconds * 1e3 - self._guess_ms, 0.0) / num_read
            read_ms = min(read_ms, _MOST_LATE * self.read_ms)
            self.read_ms += _READ_RATE * (read_ms - self.read_ms)
        if num_read <= _FEW_TOKENS:
            elapsed_ms = min(seconds * 1e3, _MOST_LATE * self._guess_ms)
            self._guess_ms += _COST_RATE * (elapsed_ms - self._guess_ms)

    def forget(self) -> None:
        """An answer begins: what reading took so far is a little less certain."""
        self.read_ms += _FORGET_RATE * (self._guess_ms * _READ_SHARE - self.read_ms)
