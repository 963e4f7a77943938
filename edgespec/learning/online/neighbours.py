"""What the target said where the drafter's hidden state was like the present one.

The nearest neighbours of a hidden state among earlier positions vote for what was said there, and
are believed the more the nearer they are (nearest neighbour language models, arXiv 1911.00172).
This needs no training, so what the target said in one answer serves the next.

Hidden states are reduced to a few numbers and put into clusters; only those of the nearest clusters
are looked at, a tenth of a millisecond for 30,000 positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgespec.learning.online.correction import Floats

NUM_NEIGHBOURS = 16
NUM_CLUSTERS_ASKED = 8

_SHARPNESS = 15.0
"""How much more a nearer neighbour counts: weights are exp(_SHARPNESS * cosine)."""
_MOST, _STEEPNESS, _MIDDLE = 0.7, 15.0, 0.8
"""The neighbours' share of the mixture, by the cosine of the nearest: a logistic curve."""
_LEAST = 0.01
"""With a smaller share they are not asked."""


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """Reduces hidden states to unit keys: `down` is (size, num_embedding), `mean` (num_embedding,).

    Directions of little variance are stretched, which brings out what is seldom said.
    """

    mean: Floats
    down: Floats

    @staticmethod
    def fitted(hidden: Floats, size: int, stretch: float = 0.75) -> Projection:
        """The principal directions of (n, num_embedding) hidden states."""
        mean = hidden.mean(axis=0)
        variances, directions = np.linalg.eigh(np.cov((hidden - mean).T))
        best = np.argsort(-variances)[: min(size, len(variances))]
        scales = np.maximum(variances[best], 1e-9 * variances[best[0]] + 1e-30) ** (stretch / 2)
        down = (directions[:, best] / scales).T
        return Projection(mean.astype(np.float32), np.ascontiguousarray(down, dtype=np.float32))

    def keys(self, hidden: Floats) -> Floats:
        """Unit keys of one hidden state, or of several in rows."""
        keys = (hidden - self.mean) @ self.down.T
        length = np.sqrt((keys * keys).sum(axis=-1, keepdims=True))
        unit: Floats = keys / np.maximum(length, np.float32(1e-9))
        return unit


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """Earlier positions, by cluster, to be looked up; nothing in it changes.

    Cluster i has the unit vector `centres[i]` and the positions `starts[i]` to `starts[i + 1]` of
    `keys`, (n, size), and `said`, (n,): the head's row of what the target said there.
    """

    projection: Projection
    centres: Floats
    starts: NDArray[np.int64]
    keys: Floats
    said: NDArray[np.int32]

    def mix(self, logits: Floats, hidden: Floats) -> Floats:
        """Logits of the mixture of `logits` with what the neighbours of `hidden` say.

        Gives `logits` back as they are where no neighbour is near.
        """
        cosines, said = self._nearest(self.projection.keys(hidden))
        nearest = float(cosines.max()) if len(cosines) else -1.0
        share = _MOST / (1.0 + np.exp(-_STEEPNESS * (nearest - _MIDDLE)))
        if share < _LEAST:
            return logits
        weights = np.exp(_SHARPNESS * (cosines - nearest))
        rows, places = np.unique(said, return_inverse=True)
        votes = np.bincount(places, weights / weights.sum())
        top = float(logits.max())
        total = top + float(np.log(np.exp(logits - top).sum()))
        voted = total + np.log(share / (1.0 - share) * votes)
        mixed = logits.copy()
        mixed[rows] = np.logaddexp(logits[rows], voted)
        return mixed

    def _nearest(self, key: Floats) -> tuple[Floats, NDArray[np.int32]]:
        """Cosines of the nearest positions, and what was said there."""
        to_centres = self.centres @ key
        count = min(NUM_CLUSTERS_ASKED, len(to_centres))
        asked = np.argpartition(-to_centres, count - 1)[:count]
        spans = [slice(*self.starts[cluster : cluster + 2]) for cluster in asked]
        cosines = np.concatenate([self.keys[span] @ key for span in spans])
        said = np.concatenate([self.said[span] for span in spans])
        if len(cosines) > NUM_NEIGHBOURS:
            near = np.argpartition(-cosines, NUM_NEIGHBOURS - 1)[:NUM_NEIGHBOURS]
            cosines, said = cosines[near], said[near]
        return cosines, said
