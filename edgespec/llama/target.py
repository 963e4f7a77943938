"""The target as the engine sees it: one growing sequence over a context."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgespec.llama.context import Context


class LlamaTarget:
    """Implements `edgespec.protocols.Target` over sequence 0 of a context."""

    def __init__(self, context: Context, max_rows: int) -> None:
        """`max_rows` is the most rows of one pass that give the logits of one row at a time."""
        self.context = context
        self._max_rows = max_rows
        self._num_cached = 0

    @property
    def num_context(self) -> int:
        """Cells of the KV cache."""
        return self.context.num_context

    @property
    def num_cached(self) -> int:
        """Tokens in the KV cache."""
        return self._num_cached

    @property
    def max_rows(self) -> int:
        """Most rows in one pass."""
        return min(self._max_rows, self.context.options.num_batch)

    @property
    def can_roll_back(self) -> bool:
        """False for recurrent and hybrid models."""
        return self.context.model.can_roll_back

    def prefill(self, tokens: Sequence[int]) -> None:
        """Append `tokens` batch by batch; row 0 of the logits is then the last one's."""
        size = self.context.options.num_batch
        for start in range(0, len(tokens), size):
            self._append(tokens[start : start + size], num_outputs=1)
        self.context.synchronize()

    def score(self, tokens: Sequence[int]) -> None:
        """Append `tokens` in one pass and keep the logits of every row."""
        self._append(tokens, num_outputs=len(tokens))
        self.context.synchronize()

    def logits(self, row: int) -> NDArray[np.float32]:
        """Logits of one row of the last pass: (num_vocab,), float32, a view."""
        return self.context.logits(row)

    def truncate(self, num_tokens: int) -> None:
        """Forget all but the first `num_tokens` tokens, or all where that cannot be."""
        if num_tokens >= self._num_cached:
            return
        if num_tokens == 0 or not self.can_roll_back:
            self.context.clear()
            self._num_cached = 0
        else:
            self.context.remove(num_tokens)
            self._num_cached = num_tokens

    def abort(self) -> None:
        """Make the pass under way, or the next one, raise Cancelled."""
        self.context.abort()

    def resume(self) -> None:
        """Take back an `abort`."""
        self.context.resume()

    def _append(self, tokens: Sequence[int], num_outputs: int) -> None:
        try:
            self.context.decode(tokens, self._num_cached, num_outputs=num_outputs)
        except BaseException:  # whatever ended the pass, its cells may be half-written: drop them
            self._num_cached += len(tokens)
            self.truncate(self._num_cached - len(tokens))
            raise
        self._num_cached += len(tokens)
