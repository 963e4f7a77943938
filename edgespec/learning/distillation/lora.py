"""Low-rank changes of matrices: W' = W + scale * up @ down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """The change of one matrix: `down` (rank, columns in), `up` (columns out, rank)."""

    down: Floats
    up: Floats

    @property
    def rank(self) -> int:
        """Columns between."""
        return len(self.down)

    @property
    def is_sound(self) -> bool:
        """Whether the two fit each other and hold numbers only."""
        fits = self.down.ndim == self.up.ndim == 2 and self.up.shape[1] == self.rank > 0
        return fits and bool(np.isfinite(self.down).all() and np.isfinite(self.up).all())


@dataclass(frozen=True, slots=True, eq=False)
class Lora:
    """Changes by the names of the tensors that they change, as GGUF lays these out.

    Each is multiplied by `alpha` over its rank, as LoRA's authors do (arXiv 2106.09685, section 4).
    """

    alpha: float
    changes: Mapping[str, LowRank]

    def scale(self, name: str) -> float:
        """What the change of a tensor is multiplied by."""
        return self.alpha / self.changes[name].rank

    def delta(self, name: str) -> Floats:
        """What is added to a tensor: (columns out, columns in)."""
        change = self.changes[name]
        product: Floats = change.up @ change.down
        return product * np.float32(self.scale(name))

    @property
    def num_parameters(self) -> int:
        """Numbers in all changes."""
        return sum(change.down.size + change.up.size for change in self.changes.values())
