"""A draft in drafter tokens, as the target would write it, token by token as they become sure.

The draft is a byte string that grows by the drafter's tokens. What may be proposed of it is what
the target's own tokenizer says of the bytes since the last proposal; but its last token may become
a longer one as the text goes on ("token" and "izer" are one token of a large vocabulary). So a
token comes out when

- it is settled: a safe cut of the text (`edgespec.vocab.boundaries`) lies at or behind its end, or
  the drafter ended the turn, or
- the n-gram cache expects the target to end its token where the drafter did.

The first costs one more drafter token at the end of a draft, the second is sometimes wrong. Both
are only guesses to the target, which checks every token, so neither changes what it says.

Worked example, the target knowing "low", "lower" and "est" besides single letters:

    push "low"   pending [low]: may become "lower"; the cache has seen it kept 2 times of 10
    push "er"    pending [lower]
    push " than" a word ends before a space: [lower] is proposed, " than" is pending
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from math import prod
from typing import Literal

from edgespec.vocab.ngrams import NgramCache, ending_group, run_from
from edgespec.vocab.tokenizer import ByteTokenizer, Encoded, num_unfinished

BridgeKind = Literal["direct", "settled", "ngram", "unsettled"]

MIN_ESTIMATE = 0.8
"""Least estimate of the n-gram cache for which the target's token is not waited for."""

_UNKNOWN = 0.5
"""Estimate for what is left of a draft that ends within a character."""


@dataclass(frozen=True, slots=True)
class BridgedToken:
    """One target token to be proposed.

    `acceptance` is the product of the probabilities of the `num_drafter_tokens` drafter tokens that
    no earlier proposal spanned, times the n-gram cache's estimate where that decided. `run` holds
    all drafter tokens that the token overlaps, those counted before included.
    """

    token: int
    acceptance: float
    num_drafter_tokens: int
    kind: BridgeKind
    run: tuple[int, ...]


class DraftTranslator:
    """Translates one draft after another; equal vocabularies pass tokens through.

    A draft begins where a token that the target kept ends, and its first token is read from there:
    the proposals are the target's tokenization of the drafted bytes alone. Had the target written
    the same bytes in one go it might have merged the first of them with its last token, but it did
    not: that token is said.
    """

    def __init__(
        self,
        target: ByteTokenizer,
        drafter: ByteTokenizer,
        ngrams: NgramCache,
        min_estimate: float = MIN_ESTIMATE,
    ) -> None:
        """`ngrams` is only read here; `edgespec.vocab.aligner.learn` fills it."""
        self._target = target
        self._drafter = drafter
        self._ngrams = ngrams
        self._min_estimate = min_estimate
        self._is_same = target.fingerprint == drafter.fingerprint
        self.start()

    def start(self) -> None:
        """Begin a draft at the end of the accepted text."""
        self._data = b""
        self._num_proposed_bytes = 0
        self._tokens: list[int] = []
        self._ends: list[int] = []
        self._probabilities: list[float] = []
        self._num_counted = 0
        self._is_over = False

    @property
    def is_over(self) -> bool:
        """True after an end of the turn, or a token that nothing in the target stands for."""
        return self._is_over

    def push(self, drafter_token: int, probability: float) -> tuple[BridgedToken, ...]:
        """Add one drafter token; returns what may be proposed now, which may be nothing.

        `probability` is the drafter's own, given the tokens before.
        """
        if self._is_over:
            return ()
        if self._is_same:
            self._is_over = drafter_token in self._drafter.specials.ends
            return (BridgedToken(drafter_token, probability, 1, "direct", (drafter_token,)),)
        if drafter_token in self._drafter.specials.ends:
            return self._push_end(drafter_token, probability)
        piece = self._drafter.piece(drafter_token)
        if not piece:
            self._is_over = True
            return ()
        self._data += piece
        self._tokens.append(drafter_token)
        self._ends.append(len(self._data))
        self._probabilities.append(probability)
        return self._propose()

    def finish(self) -> tuple[BridgedToken, ...]:
        """What is left, whatever it may still become; ends the draft."""
        self._is_over = True
        base = self._num_proposed_bytes
        pending = self._data[base:]
        encoded = self._target.encode(pending[: len(pending) - num_unfinished(pending)])
        estimate = self._estimate(encoded, base)
        return self._take(encoded, base, slice(None), "unsettled", estimate or _UNKNOWN)

    def _propose(self) -> tuple[BridgedToken, ...]:
        base = self._num_proposed_bytes
        pending = self._data[base:]
        text = pending[: len(pending) - num_unfinished(pending)]
        encoded = self._target.encode(text)
        cut = self._target.boundaries.last(text)
        num_settled = encoded.ends.index(cut) + 1 if cut in encoded.ends else 0
        proposed = self._take(encoded, base, slice(num_settled), "settled", 1.0)
        if num_settled < len(encoded.tokens):
            estimate = self._estimate(encoded, base)
            if estimate is not None and estimate >= self._min_estimate:
                proposed += self._take(encoded, base, slice(num_settled, None), "ngram", estimate)
        return proposed

    def _push_end(self, token: int, probability: float) -> tuple[BridgedToken, ...]:
        """The turn ends here, so nothing can grow any more; half a character stays half."""
        self._is_over = True
        base = self._num_proposed_bytes
        encoded = self._target.encode(self._data[base:])
        proposed = self._take(encoded, base, slice(None), "settled", 1.0)
        end = self._target.specials.end_of_turn
        if end is None:
            return proposed
        return (*proposed, BridgedToken(end, probability, 1, "direct", (token,)))

    def _estimate(self, encoded: Encoded, base: int) -> float | None:
        """Probability that a token of the target ends with the draft; None within a character."""
        if not encoded.tokens or base + encoded.ends[-1] != len(self._data):
            return None
        start = base + (encoded.ends[-2] if len(encoded.ends) > 1 else 0)
        run = run_from(self._tokens, self._ends, start)
        return self._ngrams.estimate(run, encoded.tokens[-1], ending_group(self._data[start:], run))

    def _take(
        self, encoded: Encoded, base: int, part: slice, kind: BridgeKind, factor: float
    ) -> tuple[BridgedToken, ...]:
        """Propose part of `encoded`, whose ends count from byte `base` of the draft.

        `factor` is the estimate on which all of them rest; it counts once, on the first.
        """
        proposed = []
        for token, end in zip(encoded.tokens[part], encoded.ends[part], strict=True):
            proposed.append(self._bridge(token, base + end, kind, factor))
            factor = 1.0
        return tuple(proposed)

    def _bridge(self, token: int, end: int, kind: BridgeKind, factor: float) -> BridgedToken:
        first = bisect_right(self._ends, self._num_proposed_bytes)
        last = bisect_left(self._ends, end) + 1
        acceptance = factor * prod(self._probabilities[self._num_counted : last])
        num_new = max(0, last - self._num_counted)
        self._num_counted = max(self._num_counted, last)
        self._num_proposed_bytes = end
        return BridgedToken(token, acceptance, num_new, kind, tuple(self._tokens[first:last]))
