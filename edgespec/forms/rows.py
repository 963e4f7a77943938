"""Rows of a trimmed head, chosen anew by what targets said to this user.

Text of the user's own counts more than the shipped counts, whose rare words make room. Whether that
is any better is told by text that was not counted: the latest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgespec.forms.counts import TokenCounts, keep_tokens
from edgespec.forms.trimming import always_kept
from edgespec.forms.words import WordCounts
from edgespec.vocab.tokenizer import ByteTokenizer

OWN_WEIGHT = 4.0
"""How much more what a target said to this user counts than what it said to us."""

HELD_OUT = 0.25
"""Share of the text, the latest, that choices are judged by."""


@dataclass(frozen=True, slots=True, eq=False)
class NewRows:
    """Rows to keep: token ids, ascending, int32, as many as before.

    `gain` is the share of the held-out tokens that a head can say besides, with rows that were
    chosen without these tokens. `is_own` tells whether what was said to the user counts.
    """

    kept: NDArray[np.int32]
    gain: float
    origin: str
    is_own: bool


class RowChooser:
    """Chooses rows for the head of one drafter."""

    def __init__(self, tokenizer: ByteTokenizer, words: WordCounts) -> None:
        """`tokenizer` is the drafter's; `words` are those that came with EdgeSpec."""
        self._tokenizer = tokenizer
        self._words = words
        self._always = always_kept(tokenizer)
        self._shipped: TokenCounts | None = None

    def choose(
        self, texts: Sequence[str], kept: NDArray[np.int32], between: Callable[[], None]
    ) -> NewRows:
        """Rows in place of `kept` by `texts`, the latest first; all is used where it is too little.

        Half a second for 100,000 tokens; `between` is called every millisecond, and may raise.
        """
        if self._shipped is None:
            self._shipped = self._words.in_tokens(self._tokenizer, between)
        num_held = _first_share(texts, HELD_OUT)
        held = self._counted(texts[:num_held], between)
        rest = self._counted(texts[num_held:], between)
        both = rest.plus(held)
        total = int(both.counts.sum())
        origin = f"{self._shipped.origin} and {total:,} tokens said to you"
        return NewRows(
            self._rows(both, len(kept)),
            _share(held, self._rows(rest, len(kept))) - _share(held, kept),
            origin if total else self._shipped.origin,
            is_own=total > 0,
        )

    def _counted(self, texts: Sequence[str], between: Callable[[], None]) -> TokenCounts:
        def read() -> Iterator[str]:
            for text in texts:
                between()
                yield text

        return WordCounts.of(read(), "the user's own").in_tokens(self._tokenizer, between)

    def _rows(self, own: TokenCounts, num_kept: int) -> NDArray[np.int32]:
        assert self._shipped is not None
        return keep_tokens(self._shipped.plus(own, OWN_WEIGHT), num_kept, self._always)


def _first_share(texts: Sequence[str], share: float) -> int:
    """How many of the first texts make up `share` of all."""
    ends = np.cumsum([len(text) for text in texts])
    return int(np.searchsorted(ends, share * ends[-1])) + 1 if len(texts) else 0


def _share(counts: TokenCounts, kept: NDArray[np.int32]) -> float:
    total = float(counts.counts.sum())
    return float(counts.counts[kept].sum()) / total if total else 1.0
