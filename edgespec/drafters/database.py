"""The `database` strategy: what followed the same words before, in earlier chats and files.

One index for each tier of the token database, highest first: what the target said to this user,
then imported text. In each tier a cursor stands after the longest match; guess after guess, the
tier that is surest says what comes next, and the cursors that agree move on. A guess is judged by
its tier, by how long the match before it is and by how unanimous the earlier occurrences were.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from typing import Protocol

from edgespec.drafters.calibration import Calibration
from edgespec.types import Proposal

_LENGTHS = (2, 3, 4, 6, 9, 14, 22, 32)
"""Lower bounds of the classes of match lengths."""

_SHARES = ("split", "majority", "once", "always")
"""Classes of support: below half, above half, a single occurrence, several and all the same."""

_FOLLOW = 9
"""From this length of match on, a cursor is followed as long as it agrees with what is kept.

A shorter match may be one of many: looked up anew, with the kept tokens, it finds better ones.
"""

_MAX_SUFFIX = 32
"""Tokens of text handed to a look-up."""

# Share of guesses kept, by length (rows) and support (columns). Only a start, see `learn`.
_PRIOR = (
    (0.14, 0.32, 0.30, 0.55),
    (0.18, 0.42, 0.45, 0.65),
    (0.22, 0.48, 0.60, 0.75),
    (0.28, 0.52, 0.72, 0.85),
    (0.32, 0.57, 0.82, 0.91),
    (0.37, 0.62, 0.88, 0.94),
    (0.42, 0.67, 0.92, 0.95),
    (0.45, 0.70, 0.94, 0.97),
)

NUM_TIERS = 2
"""Tiers that the calibration tells apart."""


class Continuation(Protocol):
    """A token that followed `length` tokens of the text: in `support` of `total` occurrences."""

    @property
    def token(self) -> int:
        """The token."""
        ...

    @property
    def length(self) -> int:
        """Tokens of the match before it."""
        ...

    @property
    def support(self) -> int:
        """Occurrences that it followed."""
        ...

    @property
    def total(self) -> int:
        """Occurrences that anything followed."""
        ...


class TokenCursor(Protocol):
    """A place after a match; never changes."""

    def best(self) -> Continuation:
        """The most supported continuation."""
        ...

    def after(self, token: int) -> TokenCursor | None:
        """The cursor after one more token; None where nothing is recorded."""
        ...

    def confirm(self) -> None:
        """A guess from here was kept."""
        ...


class TokenIndex(Protocol):
    """Recorded token sequences, searchable by the end of a text; never raises."""

    def lookup(self, suffix: Sequence[int]) -> TokenCursor | None:
        """A cursor after the longest recorded suffix of a text that ends with `suffix`."""
        ...


class DatabaseDrafter:
    """Implements `edgespec.protocols.Drafter` by looking into recorded token sequences."""

    name = "database"
    cost_ms = 0.0

    def __init__(self, tiers: Sequence[TokenIndex], calibration: Calibration | None = None) -> None:
        """`tiers`, highest first, at most NUM_TIERS; `calibration` is made by `new_calibration`."""
        if len(tiers) > NUM_TIERS:
            raise ValueError(f"{len(tiers)} tiers are more than {NUM_TIERS}")
        self.calibration = calibration or new_calibration()
        self._tiers = tuple(tiers)
        self._text: list[int] = []
        self._cursors: list[TokenCursor | None] = [None] * len(tiers)
        self._stale = True

    def begin(self, prompt: Sequence[int]) -> None:
        """Stand at the end of the prompt."""
        self._text = list(prompt[-_MAX_SUFFIX:])
        self._cursors = [None] * len(self._tiers)
        self._stale = True

    def propose(self) -> Iterator[Proposal]:
        """Follow the cursors; ends where nothing recorded agrees with the guesses any more."""
        self._look_up()
        cursors = list(enumerate(self._cursors))
        while True:
            guesses = [self._guess(tier, cursor) for tier, cursor in cursors if cursor is not None]
            if not guesses:
                return
            surest = max(guesses, key=lambda guess: guess.acceptance)
            yield surest
            cursors = [
                (tier, cursor.after(surest.token)) for tier, cursor in cursors if cursor is not None
            ]

    def learn(self, proposals: Sequence[Proposal], kept: Sequence[int]) -> None:
        """Count every guess that the target's answer judged, up to the first wrong one."""
        for index, (proposal, token) in enumerate(zip(proposals, kept, strict=False)):
            self.calibration.observe(proposal.evidence, proposal.token == token)
            if proposal.token != token:
                return
            if index == 0:
                self._confirm(proposal)

    def extend(self, tokens: Sequence[int]) -> None:
        """Move the cursors on by what the target kept; look-ups wait for the next `propose`."""
        if not tokens:
            return
        self._text = [*self._text, *tokens][-_MAX_SUFFIX:]
        for token in tokens:
            self._cursors = [cursor and cursor.after(token) for cursor in self._cursors]
        self._stale = True

    def _look_up(self) -> None:
        """Renew the cursors that the kept tokens left behind, or that stand after little."""
        if not self._stale:
            return
        for tier, cursor in enumerate(self._cursors):
            if cursor is None or cursor.best().length < _FOLLOW:
                self._cursors[tier] = self._tiers[tier].lookup(self._text)
        self._stale = False

    def _guess(self, tier: int, cursor: TokenCursor) -> Proposal:
        best = cursor.best()
        kind = evidence_kind(tier, best)
        return Proposal(best.token, self.calibration.estimate(kind), kind)

    def _confirm(self, proposal: Proposal) -> None:
        """Let the tier know that a kept guess came from it."""
        cursor = self._cursors[proposal.evidence // _KINDS_PER_TIER]
        if cursor is not None:
            cursor.confirm()


_KINDS_PER_TIER = len(_LENGTHS) * len(_SHARES)


def new_calibration() -> Calibration:
    """Calibration over the kinds of evidence of this strategy, with its measured prior."""
    return Calibration([share for _tier in range(NUM_TIERS) for row in _PRIOR for share in row])


def evidence_kind(tier: int, guess: Continuation) -> int:
    """Number of the class of evidence behind a guess: by tier, length of match and support."""
    length = max(bisect.bisect_right(_LENGTHS, guess.length) - 1, 0)
    if guess.support == guess.total:
        share = 2 if guess.total == 1 else 3
    else:
        share = 1 if 2 * guess.support > guess.total else 0
    return tier * _KINDS_PER_TIER + length * len(_SHARES) + share
