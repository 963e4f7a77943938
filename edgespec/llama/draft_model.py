"""A small model that guesses the next token, whole or with a trimmed head.

A trimmed model (edgespec.gguf.trim) has logits for the kept tokens only and no tokenizer; it is
fed rows of the whole model's embedding table instead of ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from edgespec.llama.context import Context
from edgespec.llama.spare_rows import SpareRows

_MOST_TOLD = 48
"""So many tokens are read in one pass with hidden states, and so the logits, of each; of more only
the last one gets them, in a pass of its own."""

EmbeddingLookup = Callable[[Sequence[int]], NDArray[np.float32]]
"""Embeddings of token ids: (num_tokens, num_embedding), float32."""


class LlamaDraftModel:
    """Implements `edgespec.drafters.model.DraftModel` over one sequence of a context."""

    def __init__(
        self,
        context: Context,
        embeddings: EmbeddingLookup | None = None,
        kept: NDArray[np.int32] | None = None,
        sequence: int = 0,
    ) -> None:
        """`kept[i]` is the token of logit i; without it, i. Both are given for a trimmed model.

        If the context gives hidden states, `spare` may be set between guesses: what was read can
        then be guessed even if it was not kept.
        """
        self.context = context
        self.num_bytes = context.model.num_bytes
        self.spare: SpareRows | None = None
        self._embeddings = embeddings
        self._kept = kept
        self._sequence = sequence
        self._num_cached = 0

    def beside(self, sequence: int) -> LlamaDraftModel:
        """The same model over another sequence of its context."""
        other = LlamaDraftModel(self.context, self._embeddings, self._kept, sequence)
        other.spare = self.spare
        return other

    def within(self, context: Context) -> LlamaDraftModel:
        """The same model over another context of its weights, without spare rows."""
        return LlamaDraftModel(context, self._embeddings, self._kept)

    @property
    def num_context(self) -> int:
        """Cells of the KV cache that this sequence may fill."""
        return self.context.num_context // self.context.options.num_sequences

    def read(self, tokens: Sequence[int]) -> None:
        """Append `tokens` (at least one); `guess` then tells what may follow the last.

        Raises Cancelled or NativeLibraryError; the cache is then empty.
        """
        size = self.context.options.num_batch
        try:
            for start in range(0, len(tokens), size):
                part = tokens[start : start + size]
                if self.context.options.hidden_states and len(part) > _MOST_TOLD:
                    self._pass(part[:-1], hidden_states=False)
                    part = part[-1:]
                self._pass(part)
            if self.spare is not None:
                self.spare.note(tokens)
            self.context.synchronize()
        except BaseException:  # whatever ended the pass, what it left in the cache is not known
            self.context.remove(0, sequence=self._sequence)
            self._num_cached = 0
            raise

    def _pass(self, tokens: Sequence[int], *, hidden_states: bool = True) -> None:
        rows = tokens if self._embeddings is None else self._embeddings(tokens)
        self.context.decode(
            rows, self._num_cached, sequence=self._sequence, hidden_states=hidden_states
        )
        self._num_cached += len(tokens)

    def guess(self) -> tuple[int, float]:
        """The likeliest next token and its probability among those that can be guessed."""
        logits = self.context.logits(0)
        best = int(logits.argmax())
        highest, token = logits[best], best if self._kept is None else int(self._kept[best])
        if self.spare is None or not len(self.spare):
            return token, 1.0 / float(np.exp(logits - highest).sum())
        others = self.spare.logits(self.context.hidden_state(0))
        place = int(others.argmax())
        if others[place] > highest:
            highest, token = others[place], self.spare.token(place)
        total = np.exp(logits - highest).sum() + np.exp(others - highest).sum()
        return token, 1.0 / float(total)

    def truncate(self, num_tokens: int) -> None:
        """Forget all but the first `num_tokens` tokens of the cache."""
        if num_tokens >= self._num_cached:
            return
        self.context.remove(num_tokens, sequence=self._sequence)
        self._num_cached = num_tokens
