"""What a constraint still allows while an answer grows, and what it would after a draft.

Two matchers follow one answer: one is where the answer is and is never taken back, so that nothing
that drafts do can change what is drawn; the other, a copy, goes ahead with drafts and comes back.

llguidance tokenizes what the grammar forces as the vocabulary would, and its mask then allows that
token alone. So a forced token is certain, and its guess is never wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from llguidance import LLMatcher
from numpy.typing import NDArray

from edgespec.errors import GrammarError


class ConstraintMatcher:
    """Implements `edgespec.protocols.Matcher` with llguidance."""

    def __init__(self, native: LLMatcher, num_tokens: int, ends: frozenset[int]) -> None:
        """`native` has accepted nothing yet; token ids run from 0 to `num_tokens`, exclusive.

        `ends` are the tokens that end an answer.
        """
        self._native = native
        self._num_tokens = num_tokens
        self._ends = ends
        self._ahead: LLMatcher | None = None
        self._path: list[int] = []  # what `_ahead` took after what was accepted
        self._only: int | None = None  # the forced token after `_path`, where `_is_known`
        self._is_known = False

    def allowed(self) -> NDArray[np.intp]:
        """Token ids that may come next, ascending; raises GrammarError where there are none."""
        words = np.frombuffer(self._native.compute_bitmask(), np.uint8)
        if self._native.is_error():  # the mask then allows the end, which would be a wrong answer
            raise _broken(self._native)
        bits = np.unpackbits(words, count=self._num_tokens, bitorder="little")
        return bits.nonzero()[0]

    def accept(self, token: int) -> None:
        """The answer goes on with `token`; raises GrammarError if it cannot."""
        if not self._native.consume_token(token):
            raise _broken(self._native)
        if self._path[:1] == [token]:
            del self._path[0]
        elif self._ahead is not None:
            self._go_back(0)
            if not self._step(token):
                self._ahead = None
            self._path.clear()

    def forced(self, tokens: Sequence[int] = ()) -> int | None:
        """The only token that may follow `tokens`, which may follow the answer; None at its end."""
        if not self._follow(tokens) or self._ahead is None:
            return None
        if not self._is_known:
            forced = self._ahead.compute_ff_tokens()
            self._only = forced[0] if forced else None
            self._is_known = True
        return self._only

    def takes(self, tokens: Sequence[int], token: int) -> bool:
        """Whether `token` may follow `tokens`; an end of the answer is not taken."""
        only = self.forced(tokens)
        if only is not None:
            return token == only
        if self._ahead is None or len(self._path) != len(tokens) or token in self._ends:
            return False
        return self._ahead.validate_tokens([token]) == 1

    def _follow(self, tokens: Sequence[int]) -> bool:
        """Have the copy stand after `tokens`; False if they may not follow."""
        if self._ahead is None:
            self._ahead = self._native.deep_copy()
            self._path, self._is_known = [], False
        num_same = 0
        for one, other in zip(self._path, tokens, strict=False):
            if one != other:
                break
            num_same += 1
        self._go_back(num_same)
        return all(self._step(token) for token in tokens[num_same:])

    def _go_back(self, num_kept: int) -> None:
        num_dropped = len(self._path) - num_kept
        if not num_dropped or self._ahead is None:
            return
        self._is_known = False
        del self._path[num_kept:]
        if not self._ahead.rollback(num_dropped):  # some grammars count what they said
            self._ahead = None

    def _step(self, token: int) -> bool:
        if self._ahead is None or self._ahead.try_consume_tokens([token]) != 1:
            return False
        self._path.append(token)
        self._is_known = False
        return True


def _broken(native: LLMatcher) -> GrammarError:
    reason = native.get_error().partition("\n")[0]
    return GrammarError(f"no token continues the grammar here: {reason}", "let it allow more")
