"""Texts as vectors: the mean of a model's final hidden states over a text, of length 1.

A text is read in parts of a context of its own, which is opened when it is first needed, so that
answers of the same model can be written between them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from edgespec.llama.context import Context
from edgespec.llama.model import Model
from edgespec.llama.options import ContextOptions

_MOST_TOKENS = 2048
_NUM_BATCH = 64


class Embedder:
    """Makes vectors of texts with one model; close it before the model."""

    def __init__(self, model: Model, options: ContextOptions) -> None:
        """`options` are those of the answers' context; memory is taken with the first text."""
        self._model = model
        self.most_tokens = min(_MOST_TOKENS, options.num_context, model.num_context_train)
        num_batch = min(_NUM_BATCH, self.most_tokens)
        self._options = replace(
            options,
            num_context=self.most_tokens,
            num_batch=num_batch,
            num_sequences=1,
            hidden_states=True,
        )
        self._context: Context | None = None

    def read(self, tokens: Sequence[int]) -> Iterator[tuple[float, ...] | None]:
        """Yield None after each part of a text but the last, and then its vector.

        At most `most_tokens` and at least one; raises NativeLibraryError. One text at a time.
        """
        if self._context is None:
            self._context = Context(self._model, self._options)
        context, size = self._context, self._options.num_batch
        context.clear()
        total = np.zeros(self._model.num_embedding, dtype=np.float64)
        for start in range(0, len(tokens), size):
            if start:
                yield None
            part = tokens[start : start + size]
            context.decode(part, start, num_outputs=len(part))
            for row in range(len(part)):
                total += context.hidden_state(row)
        length = float(np.linalg.norm(total))
        yield tuple((total / (length or 1.0)).astype(np.float32).tolist())

    def close(self) -> None:
        """Free the context; may be called twice."""
        if self._context is not None:
            self._context.close()
            self._context = None
