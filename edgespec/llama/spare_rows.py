"""Rows of the head for tokens that were read but not kept: what stands in the text can be said.

A trimmed head leaves out rare words, and a text is about its own: names, terms, words of another
language come again once they have come. Their rows are taken from the whole model's head when the
tokens are read, and scored beside the kept ones from the hidden state of each guess.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

MOST_ROWS = 256
"""Rows besides those kept; the one whose token was not read for longest makes room. Less
than a megabyte to be read for a guess, where the model takes a hundred."""

HeadLookup = Callable[[Sequence[int]], NDArray[np.float32]]
"""Rows of the whole head for token ids: (num_tokens, num_embedding), float32."""


class SpareRows:
    """The rows of the tokens that were read last, of those that a trimmed head lacks."""

    def __init__(self, head: HeadLookup, kept: NDArray[np.int32], num_tokens: int) -> None:
        """`kept` are the tokens of the trimmed head, of `num_tokens` in all."""
        self._head = head
        self._is_kept = np.zeros(num_tokens, dtype=np.bool_)
        self._is_kept[kept] = True
        self._slots: OrderedDict[int, int] = OrderedDict()  # the one read last at the end
        self._tokens = np.zeros(MOST_ROWS, dtype=np.int64)
        self._rows = np.zeros((MOST_ROWS, head([0]).shape[1]), dtype=np.float32)

    def __len__(self) -> int:
        return len(self._slots)

    def note(self, tokens: Sequence[int]) -> None:
        """Have rows for those of `tokens` that were not kept; of many, for the last."""
        others = [token for token in tokens if not self._is_kept[token]]
        if not others:
            return
        wanted = list(dict.fromkeys(reversed(others)))[:MOST_ROWS][::-1]
        for token in wanted:
            if token in self._slots:
                self._slots.move_to_end(token)
        new = [token for token in wanted if token not in self._slots]
        for token, row in zip(new, self._head(new) if new else (), strict=True):
            self._put(token, row)

    def logits(self, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits of the tokens that there are rows for, from a final hidden state."""
        # Not by BLAS, whose threads would wait for those of the models.
        scores: NDArray[np.float32] = np.einsum("ij,j->i", self._rows[: len(self)], hidden)
        return scores

    def token(self, place: int) -> int:
        """The token of a logit."""
        return int(self._tokens[place])

    def _put(self, token: int, row: NDArray[np.float32]) -> None:
        if len(self._slots) < MOST_ROWS:
            slot = len(self._slots)
        else:
            _, slot = self._slots.popitem(last=False)
        self._slots[token] = slot
        self._tokens[slot] = token
        self._rows[slot] = row
