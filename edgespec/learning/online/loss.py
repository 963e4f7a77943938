"""The hybrid distillation loss of OmniDraft (arXiv 2507.02659, section 3.2) and its gradient.

Where the target's next token is one token of the drafter's, too: reverse KL, KL(drafter || target),
over the candidates that both vocabularies know, each side normalized over these. Elsewhere, within
and behind runs of drafter tokens that stand for one of the target's: a share of the negative
log-likelihood of what was said, over the whole head.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgespec.learning.online.correction import Floats
from edgespec.learning.online.examples import FLOOR, NO_ROW, Examples


@dataclass(frozen=True, slots=True)
class LossWeights:
    """What each term counts: `kl` and `said` at direct positions, `runs` at all others.

    `said` is the negative log-likelihood of what the target said.
    """

    kl: float = 1.0
    runs: float = 0.2
    said: float = 0.0


def hybrid_loss(
    corrected: Floats, examples: Examples, weights: LossWeights
) -> tuple[Floats, Floats]:
    """Loss of each position, (n,), and its derivative by the corrected logits, (n, k).

    `corrected` are the logits of the candidates, on the scale of `examples.logits`.
    """
    loss = np.zeros(len(examples), dtype=np.float32)
    slope = np.zeros_like(corrected)
    if weights.kl:
        direct = np.flatnonzero(examples.is_direct)
        kl, by_logits = reverse_kl(corrected[direct], examples.target_logprobs[direct])
        loss[direct] += weights.kl * kl
        slope[direct] += weights.kl * by_logits
    share = np.where(examples.is_direct, weights.said, weights.runs).astype(np.float32)
    known = np.flatnonzero((examples.truth != NO_ROW) & (share > 0))
    if len(known):
        nll, by_logits = said_nll(corrected[known], examples.rest[known], examples.truth[known])
        loss[known] += share[known] * nll
        slope[known] += share[known, None] * by_logits
    return loss, slope


def reverse_kl(corrected: Floats, target_logprobs: Floats) -> tuple[Floats, Floats]:
    """KL(drafter || target) over the columns where `target_logprobs` is a number, and its slope.

    Both are (n, k); each side is normalized over these columns, the target's not below `FLOOR`.
    """
    shared = ~np.isnan(target_logprobs)
    draft = _log_softmax(np.where(shared, corrected, -np.inf))
    target = _log_softmax(np.where(shared, np.maximum(target_logprobs, FLOOR), -np.inf))
    with np.errstate(invalid="ignore"):  # minus infinity from itself, in columns that do not count
        gap = np.where(shared, draft - target, 0.0)
    draft_probs = np.where(shared, np.exp(draft), 0.0)
    kl = (draft_probs * gap).sum(axis=1)
    slope = draft_probs * (gap - kl[:, None])
    return kl.astype(np.float32), slope.astype(np.float32)


def said_nll(corrected: Floats, rest: Floats, truth: NDArray[np.int32]) -> tuple[Floats, Floats]:
    """-log of the drafter's probability of column `truth`, and its slope; `rest` is as it was."""
    top = np.maximum(corrected.max(axis=1), rest)
    weights = np.exp(corrected - top[:, None])
    total = weights.sum(axis=1) + np.exp(rest - top)
    places = np.arange(len(truth))
    nll = np.log(total) + top - corrected[places, truth]
    slope = weights / total[:, None]
    slope[places, truth] -= 1.0
    return nll.astype(np.float32), slope.astype(np.float32)


def _log_softmax(logits: Floats) -> Floats:
    top = logits.max(axis=1, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)  # a position without any shared column
    with np.errstate(divide="ignore"):
        total = np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
    return logits - top - np.where(np.isfinite(total), total, 0.0)
