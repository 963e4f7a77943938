"""Log-probabilities of emitted tokens under the target's own distribution."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgespec.types import TokenLogprob


def token_logprob(logits: NDArray[np.float32], token: int, num_top: int) -> TokenLogprob:
    """Natural-log probability of `token` and of the `num_top` most likely tokens.

    `logits` is one row, shape (num_vocab,), before temperature, penalties and grammar, as the
    OpenAI API reports it.
    """
    peak = float(logits.max())
    log_total = peak + float(np.log(np.exp(logits - peak).sum(dtype=np.float64)))
    best = _best(logits, min(num_top, len(logits)))
    top = tuple((index, float(logits[index]) - log_total) for index in best)
    return TokenLogprob(token, float(logits[token]) - log_total, top)


def _best(logits: NDArray[np.float32], count: int) -> list[int]:
    """The `count` most likely tokens, best first."""
    if count == 0:
        return []
    start = len(logits) - count
    tokens = np.argpartition(logits, start)[start:]
    best: list[int] = tokens[np.argsort(logits[tokens])[::-1]].tolist()
    return best
