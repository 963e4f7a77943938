"""The `database` strategy: what followed the same words before, in earlier chats and files.

One index for each tier of the token database, highest first: what the target said to this user,
then imported text. In each tier a cursor stands after the longest match; guess after guess, the
tier that is surest says what comes next, and the cursors that agree move on. A guess is judged by
its tier, by its place in the draft, by how long the match before it is and by how unanimous the
earlier occurrences were.

Where a long copy of a recorded sequence broke off, that sequence goes on guessing
(`edgespec.lookup.resumption`) until something matches again.

Following a cursor costs microseconds; a look-up asks the database. There is at most one for each
tier and pass at the end of the text, and LOOKUPS_AHEAD more where a draft went another way.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from edgespec.drafters import Parts
from edgespec.estimates.acceptance import NUM_SUPPORTS, Acceptance, support_class
from edgespec.lookup.resumption import AHEAD, MIN_COPIED, PRIOR, Resumption
from edgespec.lookup.surest import surest
from edgespec.passes import Kept, Proposal
from edgespec.protocols import FREE, Matcher
from edgespec.types import EncodedPrompt

_LENGTHS = (3, 4, 5, 6, 9, 14, 22, 32)
"""Lower bounds of the classes of match lengths."""

_FOLLOW = 9
"""From this length of match on, a cursor is followed as long as it agrees with what is kept.

A shorter match may be one of many: looked up anew, with the kept tokens, it finds better ones.
"""

_MAX_SUFFIX = 32
"""Tokens of text handed to a look-up."""

_SAFELY_COPIED = 14
"""A match of this length needs no more help from a copy that broke off before."""

LOOKUPS_AHEAD = 4
"""Most look-ups in one pass after tokens that other drafters guessed."""

_PLACES = (0, 1, 4)
"""Lower bounds of the classes of places in a draft."""

# Share of guesses kept, by length (rows) and support (columns), assumed the same for all tiers and
# places: between those of a large memory of like text and of a small one on other matters. Only a
# start, see `learn`.
_PRIOR = (
    (0.06, 0.25, 0.25, 0.42),
    (0.08, 0.30, 0.38, 0.55),
    (0.10, 0.35, 0.45, 0.60),
    (0.15, 0.48, 0.60, 0.76),
    (0.20, 0.55, 0.75, 0.85),
    (0.30, 0.62, 0.87, 0.93),
    (0.38, 0.70, 0.92, 0.95),
    (0.45, 0.75, 0.96, 0.98),
)

SOURCES = ("database", "database/statistics")
"""What guesses of each tier are called: of what the target said, and of imported text."""

NUM_TIERS = len(SOURCES)
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

    def ahead(self, count: int) -> list[int]:
        """At most `count` tokens that follow in one recorded sequence, the most supported one."""
        ...

    def confirm(self) -> None:
        """A guess from here was kept."""
        ...


class TokenIndex(Protocol):
    """Recorded token sequences, searchable by the end of a text; never raises."""

    def lookup(self, suffix: Sequence[int]) -> TokenCursor | None:
        """A cursor after the longest recorded suffix of a text that ends with `suffix`."""
        ...


IS_ALWAYS_ASKED = True


def build(parts: Parts) -> DatabaseDrafter | None:
    """A drafter over the tiers of a token database, if there is one."""
    return DatabaseDrafter(parts.tiers_of(""), parts.tiers_of) if parts.tiers_of else None


class DatabaseDrafter:
    """Implements `edgespec.protocols.Drafter` by looking into recorded token sequences."""

    name = "database"

    def __init__(
        self,
        tiers: Sequence[TokenIndex],
        tiers_of: Callable[[str], Sequence[TokenIndex]] | None = None,
    ) -> None:
        """`tiers`, highest first, at most NUM_TIERS; `tiers_of` gives those of an owner."""
        if len(tiers) > NUM_TIERS:
            raise ValueError(f"{len(tiers)} tiers are more than {NUM_TIERS}")
        self.calibration = new_calibration()
        self._tiers_of = tiers_of or (lambda _owner: tiers)

    def open(
        self, prompt: EncodedPrompt, said: Sequence[int] = (), _matcher: Matcher | None = None
    ) -> DatabaseSession:
        """Stand at the end of the prompt and what was said after it."""
        text = [*prompt.tokens[-_MAX_SUFFIX:], *said]
        return DatabaseSession(self._tiers_of(prompt.owner), self.calibration, text)


class DatabaseSession:
    """Implements `edgespec.protocols.DraftSession` with a cursor in each tier."""

    quote = FREE
    bridge_ms = 0.0

    def __init__(
        self,
        tiers: Sequence[TokenIndex],
        calibration: Acceptance,
        text: Sequence[int],
    ) -> None:
        """`text` is the end of what was said so far."""
        self._tiers = tiers
        self._calibration = calibration
        self._text = list(text[-_MAX_SUFFIX:])
        self._cursors: list[TokenCursor | None] = [None] * len(tiers)
        self._resumption: Resumption | None = None
        self._resumed_tier = 0
        self._first_guesses: list[tuple[Proposal, TokenCursor]] = []
        self._start_pass()

    def propose(self, prefix: Sequence[int] = ()) -> Iterator[Proposal]:
        """Follow what is surest; ends where nothing recorded agrees with the guesses any more."""
        self._look_up()
        cursors = self._after(prefix) if prefix else self._cursors
        sources = [
            self._followed(tier, cursor, len(prefix))
            for tier, cursor in enumerate(cursors)
            if cursor is not None
        ]
        if self._resumption is not None:
            sources.append(self._resumed(self._resumption, prefix))
        return surest(sources)

    def _followed(self, tier: int, cursor: TokenCursor, first_place: int) -> Iterator[Proposal]:
        """Follow one cursor."""
        following: TokenCursor | None = cursor
        for place in itertools.count(first_place):
            if following is None:
                return
            best = following.best()
            kind = evidence_kind(tier, place, best)
            guess = Proposal(best.token, self._calibration.estimate(kind), kind, SOURCES[tier])
            if place == first_place:
                self._first_guesses.append((guess, cursor))
            yield guess
            following = following.after(guess.token)

    def _resumed(self, resumption: Resumption, prefix: Sequence[int]) -> Iterator[Proposal]:
        """Follow a recorded sequence of which a copy broke off."""
        for step in resumption.steps(prefix):
            kind, source = _NUM_COPIED + step.kind, SOURCES[self._resumed_tier]
            yield Proposal(step.token, self._calibration.estimate(kind), kind, source)

    def learn(self, kept: Kept) -> None:
        """Count every guess that the target's answer judged, and move on by what it said.

        Look-ups wait for the next `propose`.
        """
        for proposals, tokens in kept.guesses_of(DatabaseDrafter.name):
            if proposals[0].token == tokens[0]:
                self._confirm(proposals[0])
            self._calibration.learn(proposals, tokens)
        self._text = [*self._text, *kept.tokens][-_MAX_SUFFIX:]
        for token in kept.tokens:
            self._move(token)
        self._start_pass()

    def close(self) -> None:
        """Nothing to let go of."""

    def _move(self, token: int) -> None:
        """Move on by one token; a copy that breaks off here may be resumed."""
        for tier, cursor in enumerate(self._cursors):
            if cursor is None:
                continue
            following = cursor.after(token)
            if following is None and cursor.best().length >= MIN_COPIED:
                self._resumption, self._resumed_tier = Resumption(cursor.ahead(AHEAD)), tier
            self._cursors[tier] = following
        if self._resumption is not None:
            self._resumption.take(token)
            longest = max((cursor.best().length for cursor in self._cursors if cursor), default=0)
            if not self._resumption.is_alive or longest >= _SAFELY_COPIED:
                self._resumption = None

    def _start_pass(self) -> None:
        self._is_stale = True
        self._num_ahead = 0
        self._first_guesses.clear()

    def _look_up(self) -> None:
        """Renew the cursors that the kept tokens left behind, or that stand after little."""
        if not self._is_stale:
            return
        for tier, cursor in enumerate(self._cursors):
            if cursor is None or cursor.best().length < _FOLLOW:
                self._cursors[tier] = self._tiers[tier].lookup(self._text)
        self._is_stale = False

    def _after(self, prefix: Sequence[int]) -> list[TokenCursor | None]:
        """The cursors after the text and a draft of others; look-ups only as far as they go."""
        text = [*self._text, *prefix][-_MAX_SUFFIX:]
        cursors = []
        for tier, cursor in enumerate(self._cursors):
            ahead = _follow(cursor, prefix)
            few = ahead is None or ahead.best().length < _FOLLOW
            if few and self._num_ahead < LOOKUPS_AHEAD:
                self._num_ahead += 1
                ahead = self._tiers[tier].lookup(text)
            cursors.append(ahead)
        return cursors

    def _confirm(self, first: Proposal) -> None:
        """Let the database know what a kept guess came from."""
        for guess, source in self._first_guesses:
            if guess is first:
                source.confirm()


_KINDS_PER_PLACE = len(_LENGTHS) * NUM_SUPPORTS
_NUM_COPIED = NUM_TIERS * len(_PLACES) * _KINDS_PER_PLACE


def new_calibration() -> Acceptance:
    """Estimates by the kinds of evidence of this strategy, with their prior."""
    prior = [share for row in _PRIOR for share in row]
    return Acceptance([*prior * (NUM_TIERS * len(_PLACES)), *PRIOR])


def evidence_kind(tier: int, place: int, guess: Continuation) -> int:
    """Number of the class of evidence behind a guess from a cursor; resumed ones follow.

    By tier, place in the draft, length of the match and support.
    """
    length = max(bisect.bisect_right(_LENGTHS, guess.length) - 1, 0)
    where = tier * len(_PLACES) + bisect.bisect_right(_PLACES, place) - 1
    kind = length * NUM_SUPPORTS + support_class(guess.support, guess.total)
    return where * _KINDS_PER_PLACE + kind


def _follow(cursor: TokenCursor | None, tokens: Sequence[int]) -> TokenCursor | None:
    """The cursor after `tokens`; None as soon as nothing is recorded."""
    for token in tokens:
        if cursor is None:
            break
        cursor = cursor.after(token)
    return cursor
