"""A draft in drafter tokens, as the target would write it, token by token as they become sure.

The draft is a byte string that grows by the drafter's tokens; what is proposed of it is what the
target's own tokenizer says of it. But the last token of that may become a longer one as the text
goes on ("token" and "izer" are one token of a large vocabulary). So a token comes out when

- it is settled: a safe cut of the text (`edgespec.vocab.boundaries`) lies at or behind its end, or
  the drafter ended the turn, or
- it is followed: the target's tokenizer has begun another token behind it, or
- the n-gram cache expects the target to end its token where the drafter did.

The first needs some more of the drafter's tokens, the second mostly one; it is seldom wrong,
the third sometimes. When the following bytes show that one was, the draft is over. All of it is
only a guess to the target, which checks every token, so what it says never changes.

Worked example, the target knowing "low", "lower" and "est" besides single letters:

    push "low"   pending [low]: may become "lower"; the cache has seen it kept 2 times of 10
    push "er"    pending [lower]
    push " than" a word ends before a space: [lower] is proposed, " than" is pending
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from math import prod
from typing import NamedTuple

from edgespec.vocab.ngrams import NgramCache, ending_group, run_from
from edgespec.vocab.tokenizer import ByteTokenizer, Encoded, num_unfinished

MIN_ESTIMATE = 0.8
"""Least estimate for which the target's token is not waited for (bench/LOG.md, byte bridge)."""

FOLLOWED = 0.98
"""Share of followed tokens that no later byte changes (bench/LOG.md, byte bridge)."""

_UNKNOWN = 0.5
"""Estimate for what is left of a draft that ends within a character."""


class BridgedToken(NamedTuple):
    """One target token to be proposed.

    `acceptance` is the product of the probabilities of the drafter tokens that no earlier proposal
    spanned, times the estimate of its end where it is not settled.
    """

    token: int
    acceptance: float


class DraftTranslator:
    """Translates one draft after another; equal vocabularies pass tokens through.

    A draft begins where a token that the target kept ends, and its first token is read from there:
    the proposals begin the target's tokenization of the drafted bytes alone. Had the target written
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
        self._tokens: list[int] = []
        self._ends: list[int] = []
        self._probabilities: list[float] = []
        self._num_counted = 0
        self._num_settled_bytes = 0
        self._num_proposed_bytes = 0
        self._guessed: list[int] = []
        self._is_over = False

    @property
    def is_over(self) -> bool:
        """True when nothing more will come.

        After `finish`, after an end of the turn, after a token that nothing in the target stands
        for, and when a proposed token turns out to be the beginning of a longer one.
        """
        return self._is_over

    def push(self, drafter_token: int, probability: float) -> tuple[BridgedToken, ...]:
        """Add one drafter token; returns what may be proposed now, which may be nothing.

        `probability` is the drafter's own, given the tokens before.
        """
        if self._is_over:
            return ()
        if self._is_same:
            self._is_over = drafter_token in self._drafter.specials.ends
            return (BridgedToken(drafter_token, probability),)
        if drafter_token in self._drafter.specials.ends:
            return self._push_end(probability)
        piece = self._drafter.piece(drafter_token)
        if not piece:
            return self.finish()
        self._data += piece
        self._tokens.append(drafter_token)
        self._ends.append(len(self._data))
        self._probabilities.append(probability)
        return self._propose()

    def finish(self) -> tuple[BridgedToken, ...]:
        """What is left, whatever it may still become; ends the draft."""
        if self._is_over:
            return ()
        self._is_over = True
        encoded = self._encode(self._whole_characters())
        estimate = self._estimate(encoded)
        return self._take(encoded, _UNKNOWN if estimate is None else estimate)

    def _propose(self) -> tuple[BridgedToken, ...]:
        text = self._whole_characters()
        encoded = self._encode(text)
        if self._is_over:
            return ()
        cut = self._target.boundaries.last(text)
        settled = _part(encoded, bisect_right(encoded.ends, cut) if cut in encoded.ends else 0)
        proposed = self._take(settled, 1.0)
        if self._min_estimate <= FOLLOWED:
            followed = _part(encoded, max(0, len(encoded.tokens) - 1))
            proposed += self._take(followed, FOLLOWED)
        estimate = self._estimate(encoded)
        if estimate is not None and estimate >= self._min_estimate:
            proposed += self._take(encoded, estimate)
        if settled.tokens:
            self._num_settled_bytes += cut
            del self._guessed[: len(settled.tokens)]
        return proposed

    def _push_end(self, probability: float) -> tuple[BridgedToken, ...]:
        """The turn ends here, so nothing can grow any more; half a character stays half."""
        encoded = self._encode(self._data[self._num_settled_bytes :])
        if self._is_over:
            return ()
        self._is_over = True
        proposed = self._take(encoded, 1.0)
        end = self._target.specials.end_of_turn
        if end is None:
            return proposed
        return (*proposed, BridgedToken(end, probability))

    def _whole_characters(self) -> bytes:
        """What is not settled, but for half a character at the end."""
        text = self._data[self._num_settled_bytes :]
        return text[: len(text) - num_unfinished(text)]

    def _encode(self, text: bytes) -> Encoded:
        """The target's tokens of what is not settled; ends the draft if a guess was wrong."""
        encoded = self._target.encode(text)
        self._is_over |= encoded.tokens[: len(self._guessed)] != self._guessed
        return encoded

    def _estimate(self, encoded: Encoded) -> float | None:
        """Probability that a token of the target ends with the draft; None within a character."""
        base = self._num_settled_bytes
        if not encoded.tokens or base + encoded.ends[-1] != len(self._data):
            return None
        start = base + (encoded.ends[-2] if len(encoded.ends) > 1 else 0)
        run = run_from(self._tokens, self._ends, start)
        group = ending_group(self._data[start:], run)
        return self._ngrams.estimate(run, encoded.tokens[-1], group)

    def _take(self, encoded: Encoded, factor: float) -> tuple[BridgedToken, ...]:
        """Propose what of `encoded`, which begins at the settled bytes, was not proposed before.

        `factor` is the estimate on which all of it rests; it counts once, on the first.
        """
        proposed = []
        for token, end in zip(encoded.tokens, encoded.ends, strict=True):
            if self._num_settled_bytes + end > self._num_proposed_bytes:
                proposed.append(self._bridge(token, self._num_settled_bytes + end, factor))
                self._guessed.append(token)
                factor = 1.0
        return tuple(proposed)

    def _bridge(self, token: int, end: int, factor: float) -> BridgedToken:
        last = bisect_left(self._ends, end) + 1
        acceptance = factor * prod(self._probabilities[self._num_counted : last])
        self._num_counted = max(self._num_counted, last)
        self._num_proposed_bytes = end
        return BridgedToken(token, acceptance)


def _part(encoded: Encoded, count: int) -> Encoded:
    """The first `count` tokens."""
    return Encoded(encoded.tokens[:count], encoded.ends[:count])
