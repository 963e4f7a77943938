"""Many answers at once: sequences side by side in one context, one row of each in every pass.

A pass over 16 rows costs little more than two passes over one, so this is several times faster than
answering one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgespec.errors import NativeLibraryError
from edgespec.llama.bridge import ModelBridge
from edgespec.llama.context import Context, ContextOptions
from edgespec.llama.library import api
from edgespec.llama.model import Model
from edgespec.types import Message

NUM_SEQUENCES = 16
_MOST_TOKENS = 1200


@dataclass
class _Answer:
    """One sequence under way; `last` is not in the cache yet."""

    num_cached: int
    last: int
    tokens: list[int] = field(default_factory=list)


class Answerer:
    """Answers up to NUM_SEQUENCES questions side by side."""

    def __init__(self, model: Model, num_threads: int, temperature: float, seed: int) -> None:
        """Temperature 0 is greedy; else the 40 likeliest tokens are drawn from."""
        self._model = model
        self._bridge = ModelBridge(model)
        self._temperature = temperature
        self._random = np.random.default_rng(seed)
        options = ContextOptions(
            num_context=NUM_SEQUENCES * _MOST_TOKENS,
            num_threads=num_threads,
            num_sequences=NUM_SEQUENCES,
        )
        self._context = Context(model, options)
        self._batch = api.llama_batch_init(NUM_SEQUENCES, 0, 1)

    def close(self) -> None:
        """Free the context."""
        api.llama_batch_free(self._batch)
        self._context.close()

    def answer(self, questions: Sequence[str], num_tokens: int) -> list[str]:
        """Answers of at most `num_tokens` each, in order."""
        self._context.clear()
        answers = [self._begin(index, text) for index, text in enumerate(questions)]
        for _ in range(num_tokens):
            running = {
                index: answer
                for index, answer in enumerate(answers)
                if not self._model.vocab.is_end(answer.last)
            }
            for answer in running.values():
                answer.tokens.append(answer.last)
            if not running:
                break
            self._step(running)
        detokenize = self._model.vocab.detokenize
        return [detokenize(answer.tokens).decode("utf-8", "ignore") for answer in answers]

    def _begin(self, sequence: int, question: str) -> _Answer:
        tokens = self._bridge.encode_chat([Message("user", question)])[: _MOST_TOKENS // 2]
        self._context.decode(tokens, 0, sequence=sequence)
        return _Answer(len(tokens), self._draw(self._context.logits(0)))

    def _step(self, running: dict[int, _Answer]) -> None:
        """Feed the last token of every running answer and draw the next ones."""
        for row, (sequence, answer) in enumerate(running.items()):
            self._batch.token[row] = answer.last
            self._batch.pos[row] = answer.num_cached
            self._batch.n_seq_id[row] = 1
            self._batch.seq_id[row][0] = sequence
            self._batch.logits[row] = 1
        self._batch.n_tokens = len(running)
        if api.llama_decode(self._context.handle, self._batch) != 0:
            raise NativeLibraryError("llama_decode failed")
        for row, answer in enumerate(running.values()):
            pointer = api.llama_get_logits_ith(self._context.handle, row)
            logits = np.ctypeslib.as_array(pointer, (self._model.vocab.num_tokens,))
            answer.num_cached += 1
            answer.last = self._draw(logits)

    def _draw(self, logits: NDArray[np.float32]) -> int:
        if not self._temperature:
            return int(np.argmax(logits))
        best = np.argpartition(logits, -40)[-40:]
        noise = self._random.gumbel(size=len(best))
        return int(best[np.argmax(logits[best] / self._temperature + noise)])
