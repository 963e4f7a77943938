"""Positions of earlier answers, kept to be neighbours of later ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgespec.learning.online.correction import Floats
from edgespec.learning.online.neighbours import Neighbours, Projection

CAPACITY = 32768
"""Positions kept; the oldest go. 17 MB in memory, 4 MB on disk."""

KEY_SIZE = 128
NUM_TO_FIT = 1024
"""Positions from which the projection is made; before, there are no neighbours."""

_CLUSTER_SIZE = 128
_MOST_CLUSTERS = 256
_NUM_ROUNDS, _NUM_SAMPLED = 3, 8192
_REGROWN = 1.5
_LEVELS = 127.0


@dataclass(frozen=True, slots=True, eq=False)
class DatastoreState:
    """A memory to be kept: empty, or a projection with keys in steps of 1/127 and what was said."""

    mean: Floats
    down: Floats
    keys: NDArray[np.int8]
    said: NDArray[np.int32]

    @staticmethod
    def empty(num_embedding: int) -> DatastoreState:
        """One without anything."""
        return DatastoreState(
            np.zeros(num_embedding, dtype=np.float32),
            np.zeros((0, num_embedding), dtype=np.float32),
            np.zeros((0, 0), dtype=np.int8),
            np.zeros(0, dtype=np.int32),
        )

    def fits(self, num_embedding: int, num_rows: int) -> bool:
        """Whether it is of hidden states of this size and rows of a head of this size."""
        largest = int(self.said.max()) if len(self.said) else -1
        return self.down.shape[1] == num_embedding and largest < num_rows


class Datastore:
    """Grows with each answer; `index` gives what is served."""

    def __init__(self, num_embedding: int, capacity: int = CAPACITY) -> None:
        self._num_embedding = num_embedding
        self._capacity = capacity
        self._clear()

    def _clear(self) -> None:
        self._projection: Projection | None = None
        self._unfitted: list[tuple[Floats, NDArray[np.int32]]] = []
        self._keys: Floats = np.zeros((0, KEY_SIZE), dtype=np.float32)
        self._said = np.zeros(0, dtype=np.int32)
        self._centres: Floats = np.zeros((0, KEY_SIZE), dtype=np.float32)
        self._clusters = np.zeros(0, dtype=np.int64)
        self._num_clustered = 0

    def __len__(self) -> int:
        return len(self._said)

    def add(self, hidden: NDArray[np.float16], said: NDArray[np.int32]) -> None:
        """Append positions: hidden states (n, num_embedding) and rows of the head (n,)."""
        states = hidden.astype(np.float32)
        if self._projection is None:
            self._unfitted.append((states, said))
            if sum(len(rows) for _, rows in self._unfitted) < NUM_TO_FIT:
                return
            states = np.concatenate([part for part, _ in self._unfitted])
            said = np.concatenate([rows for _, rows in self._unfitted])
            self._unfitted = []
            self._projection = Projection.fitted(states, KEY_SIZE)
        self._append(_rounded(self._projection.keys(states)), said)

    def index(self) -> Neighbours | None:
        """What is to be looked up; None as long as there is too little. Takes some 30 ms."""
        if self._projection is None or not len(self):
            return None
        if len(self) >= _REGROWN * self._num_clustered:
            self._cluster()
        order = np.argsort(self._clusters, kind="stable")
        starts = np.searchsorted(self._clusters[order], np.arange(len(self._centres) + 1))
        return Neighbours(
            self._projection, self._centres, starts, self._keys[order], self._said[order]
        )

    def state(self) -> DatastoreState:
        """A copy to be kept."""
        if self._projection is None:
            return DatastoreState.empty(self._num_embedding)
        keys = np.round(self._keys * _LEVELS).astype(np.int8)
        return DatastoreState(self._projection.mean, self._projection.down, keys, self._said.copy())

    def restore(self, state: DatastoreState) -> None:
        """Go on from `state`, which must be of hidden states of the same size."""
        self._clear()
        if len(state.down):
            self._projection = Projection(state.mean, state.down)
            self._append(state.keys.astype(np.float32) / np.float32(_LEVELS), state.said)

    def _append(self, keys: Floats, said: NDArray[np.int32]) -> None:
        start = max(len(self) + len(said) - self._capacity, 0)
        empty = not len(self._said)
        self._keys = keys[start:] if empty else np.concatenate([self._keys, keys])[start:]
        self._said = np.concatenate([self._said, said])[start:]
        added = self._assigned(keys) if len(self._centres) else np.zeros(len(said), np.int64)
        self._clusters = np.concatenate([self._clusters, added])[start:]

    def _assigned(self, keys: Floats) -> NDArray[np.int64]:
        nearest: NDArray[np.int64] = np.argmax(keys @ self._centres.T, axis=1)
        return nearest

    def _cluster(self) -> None:
        """Find clusters anew, by a few rounds of spherical k-means."""
        count = min(max(len(self) // _CLUSTER_SIZE, 1), _MOST_CLUSTERS)
        random = np.random.default_rng(len(self))
        sample: Floats = self._keys[random.permutation(len(self))[:_NUM_SAMPLED]]
        self._centres = sample[:count].copy()
        for _ in range(_NUM_ROUNDS):
            clusters = self._assigned(sample)
            order = np.argsort(clusters, kind="stable")
            present, starts = np.unique(clusters[order], return_index=True)
            sums = np.add.reduceat(sample[order], starts)
            lengths = np.linalg.norm(sums, axis=1, keepdims=True)
            self._centres[present] = sums / np.maximum(lengths, 1e-9)
        self._clusters = self._assigned(self._keys)
        self._num_clustered = len(self)


def _rounded(keys: Floats) -> Floats:
    """Keys as they come back from disk, so that a restart changes nothing."""
    levels = np.float32(_LEVELS)
    return (np.round(keys * levels) / levels).astype(np.float32)
