"""What the target said, in the drafter's tokens, followed as it grows.

Only the tail since the last safe cut (`edgespec.vocab.boundaries`) is tokenized again, so the work
of a step does not grow with the conversation. Worked example, drafter tokens in brackets:

    said so far   [The][ cat][ s]          settled: The, cat; tail " s"
    target adds   "at on"
    tail          " sat on" -> [ sat][ on] keep 2, feed [ sat][ on]; settled: sat; tail " on"
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from edgespec.vocab.aligner import Aligned, Aligner
from edgespec.vocab.tokenizer import ByteTokenizer, Encoded, num_unfinished

MAX_TAIL = 256
"""Bytes after which a tail without any safe cut is cut at a token, exact or not."""


@dataclass(frozen=True, slots=True)
class Feed:
    """How the drafter's KV cache gets up to date: keep the first `num_keep`, append `tokens`."""

    num_keep: int
    tokens: tuple[int, ...]


class DrafterReader:
    """Turns accepted target tokens into drafter tokens.

    The result is the drafter's own tokenization of the answer's text, whatever the steps in which
    it came (but for runs of `MAX_TAIL` bytes without a safe cut). Between equal vocabularies ids
    are passed through. Control tokens of the target are mapped by role; those without a counterpart
    are left out, and the text goes on as if they were not there.
    """

    def __init__(self, target: ByteTokenizer, drafter: ByteTokenizer) -> None:
        """Both must stay open."""
        self._target = target
        self._drafter = drafter
        self._is_same = target.fingerprint == drafter.fingerprint
        self._aligner = Aligner()
        self.begin(())

    def begin(self, prefix: Sequence[int]) -> None:
        """Start an answer after the drafter tokens `prefix`, which stay as they are."""
        self._tokens = list(prefix)
        self._num_settled = len(self._tokens)
        self._tail = b""
        self._num_pending = 0
        self._aligner.restart()

    @property
    def tokens(self) -> Sequence[int]:
        """All drafter tokens so far; a view, changed by the next `extend`."""
        return self._tokens

    @property
    def can_draft(self) -> bool:
        """False while `tokens` do not tell all that was said."""
        return self._num_pending == 0

    def extend(self, target_tokens: Sequence[int]) -> Feed:
        """Follow what the target said; tells what changes in `tokens`."""
        start = self._num_settled
        before = self._tokens[start:]
        if self._is_same:
            self._tokens.extend(target_tokens)
            self._num_settled = len(self._tokens)
        else:
            del self._tokens[start:]
            for token in target_tokens:
                self._append(token)
            self._read_tail()
        fresh = self._tokens[start:]
        num_same = _num_common(before, fresh)
        return Feed(start + num_same, tuple(fresh[num_same:]))

    def preview(self, target_tokens: Sequence[int]) -> Feed | None:
        """What `extend` would change, without changing anything: for a draft to be gone on with.

        None where the draft ends within a character or holds a control token.
        """
        pieces = list(map(self._target.piece, target_tokens))
        if self._is_same:
            return Feed(len(self._tokens), tuple(target_tokens))
        tail = self._tail + b"".join(pieces)
        if not all(pieces) or num_unfinished(tail):
            return None
        fresh = self._drafter.encode(tail).tokens
        num_same = _num_common(self._tokens[self._num_settled :], fresh)
        return Feed(self._num_settled + num_same, tuple(fresh[num_same:]))

    def take_aligned(self) -> list[Aligned]:
        """Settled text in both vocabularies since the last call, for the n-gram cache."""
        return self._aligner.take()

    def _append(self, token: int) -> None:
        piece = self._target.piece(token)
        if piece:
            self._tail += piece
            self._aligner.add_target(token, len(piece))
        elif token in self._target.specials.ends:
            self._end(token)

    def _end(self, token: int) -> None:
        """Settle the tail, whole characters or not, and append the drafter's own end."""
        self._settle(self._tail)
        self._tail = b""
        self._aligner.restart()
        counterpart = self._target.specials.counterpart(token, self._drafter.specials)
        if counterpart is not None:
            self._tokens.append(counterpart)
        self._num_settled = len(self._tokens)

    def _settle(self, data: bytes) -> None:
        encoded = self._drafter.encode(data)
        self._tokens.extend(encoded.tokens)
        self._aligner.add_drafter(encoded.tokens, encoded.ends, len(data))

    def _read_tail(self) -> None:
        """Tokenize the tail, then shorten it to what may still change."""
        self._num_pending = num_unfinished(self._tail)
        text = self._tail[: len(self._tail) - self._num_pending]
        encoded = self._drafter.encode(text)
        self._tokens.extend(encoded.tokens)
        cut = self._cut(text, encoded)
        if cut:
            count = bisect_right(encoded.ends, cut)
            self._num_settled += count
            self._aligner.add_drafter(encoded.tokens[:count], encoded.ends[:count], cut)
            self._tail = self._tail[cut:]

    def _cut(self, text: bytes, encoded: Encoded) -> int:
        """Bytes of `text` whose tokens stay as they are."""
        cut = self._drafter.boundaries.last(text)
        if cut in encoded.ends:
            return cut
        if len(text) <= MAX_TAIL:
            return 0
        return next((end for end in encoded.ends if end >= MAX_TAIL // 2), len(text))


def _num_common(first: Sequence[int], second: Sequence[int]) -> int:
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count
