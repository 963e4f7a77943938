"""The rows of one pass: what is computed, where it stands, whose cache it joins, who sees logits.

A `llama_batch` is five columns. A row is a token or an embedding at a position; it becomes a cell
of the KV cache that belongs to one sequence or to several (a node of a draft tree belongs to every
branch through it), and attends to the cells of any of these before its position.

    sequence   0   0   0  0,5  0   5      the tree  a - b - c   over the prefix x y
    position   7   8   9  10   11  11                    \\ d
    input      x   y   a   b   c   d
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgespec.llama.library import api

Inputs = Sequence[int] | NDArray[np.float32]
"""Token ids, or embeddings of shape (num_rows, num_embedding), float32."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Columns of equal length; `outputs` marks the rows that get logits."""

    inputs: Inputs
    positions: Sequence[int]
    sequences: Sequence[tuple[int, ...]]
    outputs: Sequence[bool]

    @staticmethod
    def chain(inputs: Inputs, position: int, *, sequence: int = 0, num_outputs: int = 1) -> Rows:
        """Rows of one sequence from `position` on, of which the last `num_outputs` get logits."""
        count = len(inputs)
        return Rows(
            inputs,
            range(position, position + count),
            ((sequence,),) * count,
            [index >= count - num_outputs for index in range(count)],
        )

    def __len__(self) -> int:
        return len(self.positions)


class Batch:
    """Two reusable `llama_batch`es, one of ids and one of embeddings (made at first use)."""

    def __init__(self, capacity: int, num_embedding: int, num_sequences: int) -> None:
        """Room for `capacity` rows of up to `num_sequences` sequences each."""
        self._capacity = capacity
        self._num_embedding = num_embedding
        self._num_sequences = num_sequences
        self._ids = api.llama_batch_init(capacity, 0, num_sequences)
        self._embeddings: Any = None
        self._tokens = _array(self._ids.token, capacity)

    def fill(self, rows: Rows) -> Any:  # noqa: ANN401 - a struct of the untyped binding
        """The `llama_batch` of these rows, valid until the next call."""
        count = len(rows)
        if not 1 <= count <= self._capacity:
            raise ValueError(f"a pass takes 1 to {self._capacity} rows, not {count}")
        if isinstance(rows.inputs, np.ndarray):
            batch = self._embedding_batch()
            size = count * self._num_embedding
            np.ctypeslib.as_array(batch.embd, (size,))[:] = rows.inputs.reshape(-1)
        else:
            batch = self._ids
            self._tokens[:count] = rows.inputs
        _array(batch.pos, count)[:] = rows.positions
        _array(batch.logits, count)[:] = rows.outputs
        for index, sequences in enumerate(rows.sequences):
            batch.n_seq_id[index] = len(sequences)
            for place, sequence in enumerate(sequences):
                batch.seq_id[index][place] = sequence
        batch.n_tokens = count
        return batch

    def close(self) -> None:
        """Free both."""
        api.llama_batch_free(self._ids)
        if self._embeddings is not None:
            api.llama_batch_free(self._embeddings)

    def _embedding_batch(self) -> Any:  # noqa: ANN401 - a struct of the untyped binding
        if self._embeddings is None:
            self._embeddings = api.llama_batch_init(
                self._capacity, self._num_embedding, self._num_sequences
            )
        return self._embeddings


def _array(pointer: Any, count: int) -> NDArray[Any]:  # noqa: ANN401 - a ctypes pointer
    return np.ctypeslib.as_array(pointer, (count,))
