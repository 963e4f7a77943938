"""One text in two vocabularies, cut where tokens of both end, and what is learned from that."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from edgespec.vocab.ngrams import NgramCache, ending_group, run_from
from edgespec.vocab.tokenizer import ByteTokenizer, num_unfinished


@dataclass(frozen=True, slots=True)
class Aligned:
    """The shortest stretch of text that begins and ends at a token in both vocabularies.

    `target_ends` and `drafter_ends` count the bytes from its beginning up to each token's end.
    """

    target: tuple[int, ...]
    target_ends: tuple[int, ...]
    drafter: tuple[int, ...]
    drafter_ends: tuple[int, ...]


class Aligner:
    """Collects tokens of both sides in order and hands out what they agree on."""

    def __init__(self) -> None:
        """Starts empty."""
        self._ready: list[Aligned] = []
        self.restart()

    def restart(self) -> None:
        """Forget what has not been aligned; both sides stand at the same place."""
        self._target: list[int] = []
        self._target_ends: list[int] = []
        self._drafter: list[int] = []
        self._drafter_ends: list[int] = []
        self._target_at = self._drafter_at = 0

    def add_target(self, token: int, num_bytes: int) -> None:
        """The target's next token."""
        self._target_at += num_bytes
        self._target.append(token)
        self._target_ends.append(self._target_at)

    def add_drafter(self, tokens: Sequence[int], ends: Sequence[int], num_bytes: int) -> None:
        """The drafter's next tokens, for the next `num_bytes` bytes; `ends` count within those."""
        self._drafter.extend(tokens)
        self._drafter_ends.extend(self._drafter_at + end for end in ends)
        self._drafter_at += num_bytes
        self._match()

    def take(self) -> list[Aligned]:
        """Every stretch aligned since the last call, in order."""
        ready, self._ready = self._ready, []
        return ready

    def _match(self) -> None:
        """Hand out stretches as long as tokens of both sides end at the same byte."""
        start = num_target = num_drafter = 0
        while num_target < len(self._target) and num_drafter < len(self._drafter):
            end, other = self._target_ends[num_target], self._drafter_ends[num_drafter]
            num_target += end <= other
            num_drafter += other <= end
            if end == other:
                self._cut(num_target, num_drafter, start)
                start, num_target, num_drafter = end, 0, 0
        self._shift(start)

    def _cut(self, num_target: int, num_drafter: int, start: int) -> None:
        self._ready.append(
            Aligned(
                tuple(self._target[:num_target]),
                tuple(end - start for end in self._target_ends[:num_target]),
                tuple(self._drafter[:num_drafter]),
                tuple(end - start for end in self._drafter_ends[:num_drafter]),
            )
        )
        del self._target[:num_target], self._target_ends[:num_target]
        del self._drafter[:num_drafter], self._drafter_ends[:num_drafter]

    def _shift(self, start: int) -> None:
        """Count bytes from `start` on, where the last stretch ended."""
        if start:
            self._target_ends = [end - start for end in self._target_ends]
            self._drafter_ends = [end - start for end in self._drafter_ends]
            self._target_at -= start
            self._drafter_at -= start


def learn(ngrams: NgramCache, target: ByteTokenizer, stretch: Aligned) -> None:
    """Count, for each drafter token of `stretch`, whether the target's token ended there too.

    A draft that had stopped at this drafter token would have ended in the token that the target's
    tokenizer makes of the bytes since the target's last token: right at the end of the stretch,
    wrong before. Nothing is learned where a character is cut.
    """
    text = b"".join(map(target.piece, stretch.target))
    for index, end in enumerate(stretch.drafter_ends):
        which = bisect_left(stretch.target_ends, end)
        start = stretch.target_ends[which - 1] if which else 0
        kept = stretch.target_ends[which] == end
        token = stretch.target[which]
        if not kept:
            drafted = text[start:end]
            encoded = target.encode(drafted)
            if num_unfinished(drafted) or not encoded.tokens:
                continue
            token = encoded.tokens[-1]
            start += encoded.ends[-2] if len(encoded.ends) > 1 else 0
        run = run_from(stretch.drafter[: index + 1], stretch.drafter_ends[: index + 1], start)
        ngrams.observe(run, token, kept, ending_group(text[start:end], run))
