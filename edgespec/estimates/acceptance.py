"""Whether a guess will be kept: counts by kind of evidence, or a logistic model, as they prove.

Counts (`edgespec.estimates.counts`) see one class of guesses at a time. The head weighs their
estimate together with numbers that describe the guess, and learns from the same guesses. Both are
scored by log loss on each guess before they learn from it; the one that scored better lately gives
the estimate, so there is nothing to be set.

The head is online Bayesian logistic regression: a normal distribution over the weights, moved by
one Newton step for each guess (the extended Kalman filter's update), which widens back towards its
prior at a small rate, so that a change of subject is noticed.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from operator import mul
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgespec.estimates.counts import Calibration
from edgespec.passes import Proposal

SPREAD = 0.1
"""Standard deviation of the weights about their prior before anything was observed."""

DRIFT = 1 / 4000
"""Share of what is known of the weights that is forgotten with each guess."""

SCORE_MEMORY = 300.0
"""Guesses after which a score forgets."""

NUM_OWN = 4
"""Inputs of the head besides a proposal's features."""

_RECENT = 0.1
_MOST_LOGIT = 6.0
_LEAST_CURVATURE = 0.01
_MAGIC = b"ESAC1"
_HEADER = struct.Struct("<III")  # checksum of all that follows it, kinds, features


class AcceptanceStore(Protocol):
    """Remembers what was learned between runs, by name of the target and the drafter."""

    def load(self, target: str, drafter: str) -> bytes | None:
        """What was saved for this pair, or None."""
        ...

    def save(self, target: str, drafter: str, data: bytes) -> bool:
        """Remember `data`; False if that was not possible."""
        ...


def log_odds(probability: float) -> float:
    """Log odds in nats, for probabilities from 0.0025 to 0.9975, the limits of an estimate."""
    clipped = min(max(probability, 0.0025), 0.9975)
    return math.log(clipped / (1.0 - clipped))


def copied_features(length: int, support: int, total: int, place: int) -> tuple[float, ...]:
    """What the head weighs of a looked-up guess: its match, its support, its place in the draft.

    Like `resumed_features` it gives five numbers, of the order of 1.
    """
    return (
        0.0,
        math.log(max(length, 1)) / 2.0,
        support / total - 1.0,
        math.log(total) / 2.0,
        min(place, 4) / 4.0,
    )


def resumed_features(place: int) -> tuple[float, ...]:
    """What the head weighs of a guess where a copy goes on: that it is one, and its place."""
    return (1.0, 0.0, 0.0, 0.0, min(place, 4) / 4.0)


class AcceptanceHead:
    """Weights over a fixed number of features; the first feature should always be 1."""

    def __init__(self, prior: Sequence[float]) -> None:
        """`prior` are the weights to begin with."""
        self._start = np.eye(len(prior)) * SPREAD**2
        self._set(np.asarray(prior, dtype=np.float64), self._start.copy())

    @property
    def num_features(self) -> int:
        """Numbers that describe a guess."""
        return len(self._start)

    @property
    def weights(self) -> tuple[float, ...]:
        """The likeliest weights, in log odds."""
        return tuple(self._fast)

    def estimate(self, features: Sequence[float]) -> float:
        """Probability that a guess with these features is kept; takes about a microsecond."""
        total = sum(map(mul, self._fast, features))
        return 1.0 / (1.0 + math.exp(-min(max(total, -_MOST_LOGIT), _MOST_LOGIT)))

    def observe(self, features: Sequence[float], kept: bool) -> None:
        """Learn from one guess; takes about ten microseconds."""
        inputs = np.asarray(features, dtype=np.float64)
        share = self.estimate(features)
        curvature = max(share * (1.0 - share), _LEAST_CURVATURE)
        spread = self._spread + DRIFT * (self._start - self._spread)
        gain = spread @ inputs
        scale = 1.0 / (1.0 + curvature * float(inputs @ gain))
        moved = self._weights + gain * (scale * (kept - share))
        self._set(moved, spread - np.outer(gain, gain) * (curvature * scale))

    def export(self) -> NDArray[np.float64]:
        """All that was learned: the weights, then their covariance, flat."""
        return np.concatenate([self._weights, self._spread.ravel()])

    def restore(self, state: NDArray[np.float64]) -> None:
        """Take back what `export` gave; raises ValueError for another number of features."""
        size = self.num_features
        self._set(state[:size].copy(), state[size:].reshape(size, size).copy())

    def _set(self, weights: NDArray[np.float64], spread: NDArray[np.float64]) -> None:
        self._weights, self._spread = weights, spread
        self._fast: list[float] = weights.tolist()


class Acceptance:
    """The estimates of one drafter: from the counts or from the head, whichever scores better.

    The head weighs 1, the log odds of the count, how much better or worse than counted the last
    guesses did, their share of right ones, and `Proposal.features`, of which there are always as
    many; a guess without any is only counted.
    """

    def __init__(self, counts: Calibration, prior: Sequence[float]) -> None:
        """`prior` are the head's first weights: of those four, then of the features."""
        self.counts = counts
        self.head = AcceptanceHead(prior)
        self._losses = [0.0, 0.0]
        self._num_scored = 0.0
        self.begin()

    def begin(self) -> None:
        """Forget how the last guesses did: another answer begins."""
        self._surprise = 0.0
        self._share = 0.5

    @property
    def num_kinds(self) -> int:
        """Kinds of evidence."""
        return self.counts.num_kinds

    @property
    def losses(self) -> tuple[float, float]:
        """Log loss of late of the counts and of the head, in nats."""
        return self._losses[0], self._losses[1]

    def estimate(self, kind: int, features: Sequence[float] = ()) -> float:
        """Probability that a guess is kept, given that those before it were."""
        counted = self.counts.estimate(kind)
        if not features or self._losses[1] > self._losses[0]:
            return counted
        return self.head.estimate(self._inputs(counted, features))

    def learn(self, proposals: Sequence[Proposal], kept: Sequence[int]) -> list[bool]:
        """Learn from the guesses that `kept` judges, to the first wrong one; tells which held."""
        held: list[bool] = []
        judged = []
        for proposal, token in zip(proposals, kept, strict=False):
            held.append(proposal.token == token)
            counted = self.counts.estimate(proposal.evidence)
            judged.append((proposal, counted, self._inputs(counted, proposal.features)))
            if not held[-1]:
                break
        for (proposal, counted, inputs), right in zip(judged, held, strict=True):
            if proposal.features:
                self._score(counted, self.head.estimate(inputs), right)
                self.head.observe(inputs, right)
            self.counts.observe(proposal.evidence, right)
            self._surprise += _RECENT * (right - counted - self._surprise)
            self._share += _RECENT * (right - self._share)
        return held

    def _inputs(self, counted: float, features: Sequence[float]) -> tuple[float, ...]:
        return (1.0, log_odds(counted), 3.0 * self._surprise, 2.0 * self._share - 1.0, *features)

    def _score(self, counted: float, headed: float, right: bool) -> None:
        """Take in the log loss of both on one guess, before they learn from it."""
        rate = 1.0 / (self._num_scored + 1.0)
        for index, share in enumerate((counted, headed)):
            loss = -math.log(share if right else 1.0 - share)
            self._losses[index] += rate * (loss - self._losses[index])
        self._num_scored = min(self._num_scored + 1.0, SCORE_MEMORY)

    def export(self) -> bytes:
        """Everything learned, for keeping: checked and of a fixed length."""
        scores = np.array([*self._losses, self._num_scored])
        counts = np.asarray(self.counts.export(), dtype=np.float64).ravel()
        data = np.concatenate([scores, counts, self.head.export()]).astype("<f8").tobytes()
        sizes = self.num_kinds, self.head.num_features
        checksum = zlib.crc32(_HEADER.pack(0, *sizes) + data)
        return _MAGIC + _HEADER.pack(checksum, *sizes) + data

    def restore(self, data: bytes) -> bool:
        """Take back what `export` gave; False, and nothing changed, for any other bytes."""
        start = len(_MAGIC) + _HEADER.size
        size = self.head.num_features
        if not data.startswith(_MAGIC) or len(data) < start:
            return False
        checksum, *sizes = _HEADER.unpack(data[len(_MAGIC) : start])
        if sizes != [self.num_kinds, size]:
            return False
        if zlib.crc32(_HEADER.pack(0, *sizes) + data[start:]) != checksum:
            return False
        numbers = np.frombuffer(data[start:], dtype="<f8").astype(np.float64)
        end = 3 + 2 * self.num_kinds
        self._losses, self._num_scored = numbers[:2].tolist(), float(numbers[2])
        self.counts.restore(numbers[3:end].reshape(-1, 2).tolist())
        self.head.restore(numbers[end:])
        return True
