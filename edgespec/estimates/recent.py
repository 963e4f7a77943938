"""How often a drafter's guesses are kept lately, for deciding whether to ask it at all.

A drafter that costs time must prove itself: one that is mostly wrong is not asked any more. But its
hour may come (the subject changes), and nobody learns from what is not asked; so from time to time
it is believed to be as good as at first, for one draft. Such trials grow rarer while they fail.
"""

from __future__ import annotations

MEMORY = 12.0
"""Guesses after which an old one counts half."""

_PRIOR_STRENGTH = 3.0
_FIRST_WAIT, _LONGEST_WAIT = 8, 256  # passes without being asked before a trial


class Outlook:
    """Share of the guesses that were kept, the latest counting most."""

    def __init__(self, prior: float) -> None:
        """`prior` is what to expect of a drafter that was never asked."""
        self._prior = prior
        self._right = 0.0
        self._total = 0.0
        self._num_passes = 0  # since it was asked
        self._wait = _FIRST_WAIT
        self._is_trial = False

    def begin(self) -> None:
        """Another answer, maybe on another subject: what was seen before counts half."""
        self._right *= 0.5
        self._total *= 0.5
        self._num_passes, self._wait = 0, _FIRST_WAIT

    @property
    def value(self) -> float:
        """Probability that the next guess will be kept."""
        known = (self._right + _PRIOR_STRENGTH * self._prior) / (self._total + _PRIOR_STRENGTH)
        return max(known, self._prior) if self._is_trial else known

    def observe(self, right: bool) -> None:
        """Count a guess that the target judged."""
        fade = 0.5 ** (1.0 / MEMORY)
        self._right = self._right * fade + right
        self._total = self._total * fade + 1.0
        if self._is_trial:
            self._wait = _FIRST_WAIT if right else min(2 * self._wait, _LONGEST_WAIT)
            self._is_trial = False

    def end_pass(self, *, asked: bool) -> None:
        """Note that a pass is over, and whether the drafter had been asked for it."""
        self._num_passes = 0 if asked else self._num_passes + 1
        self._is_trial = self._num_passes >= self._wait
