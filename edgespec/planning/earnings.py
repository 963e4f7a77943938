"""What reading a prompt can earn: how many tokens an answer goes on for, what each may save.

Tokens to come are expected from the lengths of the last answers: the share of those that reached k
tokens and ended soon after gives a rate of ending by class of k. Before any was seen the rate falls
as 1 / k, down to that of answers of LONGEST tokens. A limit cuts what may be expected.

The gain, a share of a plain pass, is what drafts saved for each token of earlier answers after the
drafter had read, as a linear function of what is known before reading: `Quote.fertility`, since a
drafter that needs many tokens for a text hardly knows its language, and how much there is to read,
since where that is much look-ups draft as well. The weights move by one Kalman step for each answer
that was drafted, and with every answer a little back to where they began, so that one that lost is
tried again.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

MEMORY = 8.0
"""Answers after which the length of an old one counts half."""

LONGEST = 256.0
"""Most tokens that an answer is expected to go on for before long ones were seen."""

_FIRST_BOUND = 4
_NUM_CLASSES = 12
_OFFSET = 16.0  # tokens: the rate of ending is 1 / (k + _OFFSET) before any answer was seen

_FIRST_WEIGHTS = np.array([0.15, -0.3, -0.05])
"""Gain to expect of any model, and how it changes as fertility and as what is to be read double."""

_SPREADS = (0.15, 0.3, 0.1)
_NOISE = 0.1
_LARGEST_ERROR = 0.2
_FEW_TOKENS = 16.0  # an answer of so many says half as much
_DRIFT = 1 / 30  # share of what is known of the weights that is forgotten with each answer


class Lengths:
    """How long answers go on, by how long they already are; the last answers count most."""

    def __init__(self) -> None:
        """Expect what answers in general do."""
        bounds = [0, *(_FIRST_BOUND << place for place in range(_NUM_CLASSES - 1))]
        self._classes = [*itertools.pairwise([float(bound) for bound in bounds])]
        self._classes.append((float(bounds[-1]), math.inf))
        self._ended = [0.0] * _NUM_CLASSES
        self._tokens = [0.0] * _NUM_CLASSES

    def observe(self, num_tokens: int, *, ended: bool) -> None:
        """Take in an answer of so many tokens; one cut by a limit has not `ended`."""
        fade = 0.5 ** (1.0 / MEMORY)
        for place, (low, high) in enumerate(self._classes):
            self._ended[place] *= fade
            self._tokens[place] *= fade
            if num_tokens > low:
                self._tokens[place] += min(num_tokens, high) - low
                self._ended[place] += ended and num_tokens <= high

    def expected(self, num_tokens: int, most: int) -> float:
        """Tokens to come, `most` at most, of an answer that has `num_tokens` and goes on."""
        total, alive, at, end = 0.0, 1.0, float(num_tokens), float(num_tokens + most)
        for place, (low, high) in enumerate(self._classes):
            stretch = min(high, end) - at
            if stretch > 0:
                usual = min((low + high) / 2 + _OFFSET, LONGEST)
                rate = (self._ended[place] + 1.0) / (self._tokens[place] + usual)
                stay = math.exp(-rate * stretch)
                total += alive * (1.0 - stay) / rate
                alive *= stay
                at += stretch
        return total


class Gains:
    """What drafts save for each token of an answer, in plain passes, by what its prompt is like."""

    def __init__(self) -> None:
        """Expect what models in general give."""
        self._weights = _FIRST_WEIGHTS.copy()
        self._start = np.diag(np.square(_SPREADS))
        self._spread = self._start.copy()

    def expected(self, fertility: float, num_passes: float) -> float:
        """Plain passes saved for each token, after reading for `num_passes`; below 0 is lost."""
        return float(self._weights @ _inputs(fertility, num_passes))

    def observe(self, fertility: float, num_passes: float, share: float, num_tokens: int) -> None:
        """Take in an answer: `share` was saved for each of its tokens; outliers count less."""
        inputs = _inputs(fertility, num_passes)
        gain = self._spread @ inputs
        noise = _NOISE**2 * (1.0 + _FEW_TOKENS / num_tokens)
        rate = gain / (float(inputs @ gain) + noise)
        error = share - float(self._weights @ inputs)
        self._weights = self._weights + rate * min(max(error, -_LARGEST_ERROR), _LARGEST_ERROR)
        self._spread = self._spread - np.outer(rate, gain)

    def fade(self) -> None:
        """An answer is over: what is known is worth less, so that one that lost is tried again."""
        self._weights = self._weights + _DRIFT * (_FIRST_WEIGHTS - self._weights)
        self._spread = self._spread + _DRIFT * (self._start - self._spread)


def _inputs(fertility: float, num_passes: float) -> NDArray[np.float64]:
    return np.array([1.0, math.log2(fertility), math.log2(1.0 + num_passes) - 1.0])
