"""What a target held likely, told in a drafter's tokens: how cross-vocabulary distillation works.

Where a token of the drafter begins at the same byte as one of the target, the target's distribution
tells what comes next there: each of its likeliest tokens stands for the first of the drafter's
tokens that spell it, what was said for the one that follows here. Inside of a target's token
nothing is told: there what was said is all that there is to learn (the n-gram term of OmniDraft,
arXiv 2507.02659).

    target    [ un][believ][able]      ' un' 0.6, ' in' 0.3, ...
    drafter   [ unbeliev][able]        [ unbeliev] 0.6 (said), [ in] 0.3, ...;  [able]: nothing told
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgespec.learning.corpus import NO_TOKEN, NUM_TOP, Said
from edgespec.vocab.tokenizer import ByteTokenizer


@dataclass(frozen=True, slots=True, eq=False)
class Soft:
    """Tokens and their probabilities at n places of a drafter's text: (n, NUM_TOP) each.

    A place of which nothing is told has no probabilities; a token NO_TOKEN none, either.
    """

    tokens: NDArray[np.int32]
    probabilities: NDArray[np.float32]

    def __getitem__(self, places: slice) -> Soft:
        return Soft(self.tokens[places], self.probabilities[places])


class Softener:
    """Tells answers of one target in the tokens of one drafter."""

    def __init__(self, target: ByteTokenizer, drafter: ByteTokenizer) -> None:
        """Both must stay open."""
        self._target = target
        self._drafter = drafter
        self._is_same = target.fingerprint == drafter.fingerprint
        self._first: dict[int, int] = {NO_TOKEN: NO_TOKEN}

    def soften(self, said: Said, answer: Sequence[int]) -> Soft:
        """`answer` is what was said, in the drafter's tokens."""
        places = dict(reversed(list(zip(_starts(self._target, said.tokens), itertools.count()))))
        tokens = np.full((len(answer), NUM_TOP), NO_TOKEN, np.int32)
        chances = np.zeros((len(answer), NUM_TOP), np.float32)
        for number, (start, token) in enumerate(
            zip(_starts(self._drafter, answer), answer, strict=False)
        ):
            place = places.get(start)
            if place is None:
                continue
            likely = said.top.tokens[place].tolist()
            tokens[number] = [
                token if each == said.tokens[place] else self._first_of(each) for each in likely
            ]
            known = tokens[number] != NO_TOKEN
            chances[number, known] = np.exp(said.top.logprobs[place, known].astype(np.float32))
        return Soft(tokens, chances)

    def _first_of(self, token: int) -> int:
        """The first of the drafter's tokens that spell one of the target's; NO_TOKEN for none."""
        if self._is_same:
            return token
        if token not in self._first:
            piece = self._target.piece(token)
            spelled = self._drafter.encode(piece).tokens if piece else []
            self._first[token] = spelled[0] if spelled else self._counterpart(token)
        return self._first[token]

    def _counterpart(self, token: int) -> int:
        specials = self._target.specials
        found = specials.counterpart(token, self._drafter.specials)
        return NO_TOKEN if found is None else found


def _starts(vocabulary: ByteTokenizer, tokens: Iterable[int]) -> list[int]:
    """The byte at which each token begins."""
    sizes = (len(vocabulary.piece(int(token))) for token in tokens)
    return list(itertools.accumulate(sizes, initial=0))[:-1]
