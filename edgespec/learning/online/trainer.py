"""Trains a correction by small steps: gradients by hand, Adagrad for what is seldom touched.

z' = z + B (A h / s) + b, with s the usual size of a hidden state, which differs by a factor of a
hundred between drafters. B begins at zero, so an untrained correction changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgespec.learning.online.correction import Correction, Floats
from edgespec.learning.online.examples import Examples
from edgespec.learning.online.loss import LossWeights, hybrid_loss


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """Chosen by measurement, see docs/decisions/0012-online-adaptation.md.

    `rank` 0 is a bias alone. Rates are Adagrad's, of the three parts; slopes of B and b far below
    `damping` hardly count, so that rows which are merely thinkable stay where they are. `decay` is
    what a touched row of B and b loses in a step, as a share of its rate.
    """

    rank: int = 8
    rate_bias: float = 0.02
    rate_up: float = 0.02
    rate_down: float = 0.003
    damping: float = 0.03
    decay: float = 0.0
    weights: LossWeights = field(default_factory=lambda: LossWeights(kl=0.5, runs=1.0, said=0.5))
    seed: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class TrainerState:
    """All that training goes on from: the three parts, and Adagrad's sums of squared slopes.

    `rows` are the head rows that were ever touched, ascending, int32; `up`, `bias` and their sums
    are those of these rows. `scale` is the usual size of a hidden state, 0 if not known yet.
    """

    scale: float
    rows: NDArray[np.int32]
    down: Floats
    up: Floats
    bias: Floats
    seen_down: Floats
    seen_up: Floats
    seen_bias: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Gradient:
    """Derivatives of a mean loss, of B and b only for the head rows `rows`, each once."""

    rows: NDArray[np.int32]
    down: Floats
    up: Floats
    bias: Floats


class Trainer:
    """Holds a correction under training for all rows of a head."""

    def __init__(self, num_rows: int, num_embedding: int, options: TrainingOptions) -> None:
        """`num_rows` is the size of the head."""
        self.options = options
        random = np.random.default_rng(options.seed)
        size = (options.rank, num_embedding)
        self.down: Floats = random.normal(0, num_embedding**-0.5, size).astype(np.float32)
        self.up: Floats = np.zeros((num_rows, options.rank), dtype=np.float32)
        self.bias: Floats = np.zeros(num_rows, dtype=np.float32)
        self.scale = 0.0  # of hidden states, from the first examples
        self._seen_down = np.zeros_like(self.down)
        self._seen_up = np.zeros_like(self.up)
        self._seen_bias = np.zeros_like(self.bias)

    def correct(self, examples: Examples) -> Floats:
        """Corrected logits of the candidates: (n, k)."""
        lowered = self._hidden(examples) @ self.down.T
        up = self.up[examples.rows]
        moved = np.matmul(up, lowered[:, :, None])[:, :, 0]
        corrected: Floats = examples.logits + moved + self.bias[examples.rows]
        return corrected

    def gradient(self, examples: Examples) -> tuple[float, Gradient]:
        """Mean loss over `examples`, at least one, and its derivatives."""
        hidden = self._hidden(examples)
        lowered = hidden @ self.down.T
        up = self.up[examples.rows]
        moved = np.matmul(up, lowered[:, :, None])[:, :, 0]
        corrected = examples.logits + moved + self.bias[examples.rows]
        loss, slope = hybrid_loss(corrected, examples, self.options.weights)
        slope /= len(examples)
        by_lowered = np.matmul(slope[:, None, :], up)[:, 0, :]
        by_up = slope[:, :, None] * lowered[:, None, :]
        rows, places = np.unique(examples.rows, return_inverse=True)
        places = places.reshape(-1)
        order = np.argsort(places, kind="stable")
        starts = np.searchsorted(places[order], np.arange(len(rows)))
        rank = self.options.rank
        gradient = Gradient(
            rows,
            by_lowered.T @ hidden,
            np.add.reduceat(by_up.reshape(-1, rank)[order], starts) if rank else self.up[rows],
            np.add.reduceat(slope.reshape(-1)[order], starts),
        )
        return float(loss.mean()), gradient

    def step(self, examples: Examples) -> float:
        """One step down; returns the mean loss before it."""
        loss, gradient = self.gradient(examples)
        options, rows = self.options, gradient.rows
        self._seen_bias[rows] += gradient.bias**2
        self.bias[rows] -= options.rate_bias * gradient.bias / self._root(self._seen_bias[rows])
        if options.rank:
            self._seen_up[rows] += gradient.up**2
            self.up[rows] -= options.rate_up * gradient.up / self._root(self._seen_up[rows])
            self._seen_down += gradient.down**2
            self.down -= options.rate_down * gradient.down / self._root(self._seen_down)
        if options.decay:
            self.bias[rows] *= 1 - options.decay * options.rate_bias
            self.up[rows] *= 1 - options.decay * options.rate_up
        return loss

    def correction(self, max_rows: int) -> Correction:
        """What was learned so far, as it would be served: a copy of the `max_rows` heaviest rows.

        A row weighs its bias and what a hidden state of usual size makes of its part of B.
        """
        weight = np.abs(self.bias) + np.linalg.norm(self.up, axis=1)
        rows = np.flatnonzero(weight)
        if len(rows) > max_rows:
            rows = np.sort(rows[np.argpartition(-weight[rows], max_rows)[:max_rows]])
        scale = np.float32(self.scale or 1.0)
        up = np.asfortranarray(self.up[rows])  # whose product with a few numbers is fastest
        return Correction(rows.astype(np.int32), self.down / scale, up, self.bias[rows])

    def state(self) -> TrainerState:
        """A copy of everything, to go on from later."""
        rows = np.flatnonzero(self._seen_bias).astype(np.int32)
        return TrainerState(
            self.scale,
            rows,
            self.down.copy(),
            self.up[rows],
            self.bias[rows],
            self._seen_down.copy(),
            self._seen_up[rows],
            self._seen_bias[rows],
        )

    def restore(self, state: TrainerState) -> None:
        """Go on from `state`, which must be of a head and options of the same sizes."""
        for array in (self.up, self.bias, self._seen_up, self._seen_bias):
            array[:] = 0
        self.scale = state.scale
        self.down[:], self._seen_down[:] = state.down, state.seen_down
        self.up[state.rows], self.bias[state.rows] = state.up, state.bias
        self._seen_up[state.rows] = state.seen_up
        self._seen_bias[state.rows] = state.seen_bias

    def _hidden(self, examples: Examples) -> Floats:
        hidden = examples.hidden.astype(np.float32)
        if not self.scale:
            self.scale = float(np.sqrt(np.mean(hidden**2))) or 1.0
        return hidden / np.float32(self.scale)

    def _root(self, squares: Floats) -> Floats:
        return np.sqrt(squares) + np.float32(self.options.damping + 1e-8)
