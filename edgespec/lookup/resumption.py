"""Where a copy goes on after it broke off: one word was changed, a line left out, a line put in.

Answers that repeat a source with changes (an edited file, the same letter to somebody else) leave
it for a few tokens and come back to it. Looking the last tokens up anywhere takes several of them
to be sure again. But the source is known: this is what it would have said next (`ahead`). Of the
places soon after the break whose last tokens are those just said, the one that agrees longest is
where the copy goes on, of equals the one nearest to where it would be had only words been replaced.
Right after the break nothing agrees yet, and replacement is the best guess.

>>> resumption = Resumption([10, 11, 12, 13, 14])   # 10 was expected
>>> resumption.take(99)                             # but 99 was said
>>> [step.token for step in resumption.steps()]     # perhaps in its place
[11, 12, 13, 14]
>>> resumption.take(12)                             # no: 10 and 11 were replaced by 99
>>> [step.token for step in resumption.steps()]
[13, 14]
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from typing import NamedTuple

MIN_COPIED = 5
"""Tokens that a copy has at least; what breaks off earlier was none."""

AHEAD = 256
"""Tokens of the source kept at a break."""

_REACH = 48
"""How far beyond the break a copy may go on."""

_PATIENCE = 24
"""Tokens after a break by which the copy must have gone on."""

_MOST_COMPARED = 4
"""Tokens compared; more of them tell no more."""

_AGREEMENTS = (0, 1, 2, 3, 4, 6, 9, 14)
"""Lower bounds of the classes of tokens that agree before a guess."""

_SHIFTS = (0, 1, 2, 7)
"""Lower bounds of the classes of distances from where plain replacement would be."""

# Share of guesses kept, by agreement (rows) and shift (columns), measured as in `context`. Only a
# start.
_PRIOR = (
    (0.18, 0.15, 0.15, 0.15),
    (0.70, 0.55, 0.36, 0.22),
    (0.84, 0.74, 0.62, 0.40),
    (0.85, 0.80, 0.70, 0.55),
    (0.86, 0.86, 0.80, 0.65),
    (0.88, 0.86, 0.80, 0.75),
    (0.92, 0.90, 0.88, 0.85),
    (0.96, 0.95, 0.94, 0.92),
)

PRIOR = tuple(share for row in _PRIOR for share in row)
"""Acceptance to assume of each kind of evidence (`Step.kind`)."""


class Step(NamedTuple):
    """One token of a resumed copy, and the number of its kind of evidence."""

    token: int
    kind: int


class Resumption:
    """A copy that broke off, while what is said may still come back to it."""

    __slots__ = ("_agreement", "_ahead", "_base", "_said", "_start")

    def __init__(self, ahead: Sequence[int]) -> None:
        """`ahead` is what the source says from the token on that was expected and not said."""
        self._ahead = ahead[:AHEAD]
        self._base = 0  # where the copy broke off
        self._said: list[int] = []  # since then
        self._start = 0  # where it may go on
        self._agreement = 0

    @property
    def is_alive(self) -> bool:
        """False once it has come to nothing."""
        return len(self._said) <= _PATIENCE and self._base < len(self._ahead)

    def take(self, token: int) -> None:
        """Note what was said next."""
        expected = self._ahead[self._start] if self._start < len(self._ahead) else None
        if self._said and self._agreement >= _MOST_COMPARED and token != expected:
            self._base, self._said = self._start, []  # it broke off once more
        self._said.append(token)
        self._align()

    def steps(self, prefix: Sequence[int] = ()) -> Iterator[Step]:
        """What comes next if the copy goes on, after `prefix` if that is said first."""
        start, agreement = self._start, self._agreement
        if prefix:
            there = self._after(prefix)
            if there is None:
                return
            start, agreement = there
        shift = abs(start - self._base - len(self._said) - len(prefix))
        column = bisect.bisect_right(_SHIFTS, shift) - 1
        if not agreement and len(self._said) > 2:
            return
        for place in range(start, len(self._ahead)):
            row = bisect.bisect_right(_AGREEMENTS, agreement) - 1
            yield Step(self._ahead[place], row * len(_SHIFTS) + column)
            agreement += 1

    def _after(self, prefix: Sequence[int]) -> tuple[int, int] | None:
        """Place and agreement after tokens that the copy would have said; None if it would not."""
        end = self._start + len(prefix)
        if tuple(self._ahead[self._start : end]) != tuple(prefix):
            return None
        return end, self._agreement + len(prefix)

    def _align(self) -> None:
        """Find the place after the break that agrees longest with what was said."""
        ahead, base, said = self._ahead, self._base, self._said
        replaced = base + len(said)
        best, where, off = 0, replaced, 0
        last = said[-1]
        for place in range(base, min(base + _REACH + len(said), len(ahead))):
            if ahead[place] != last:
                continue
            agreement = self._agreement_at(place)
            shift = abs(place + 1 - replaced)
            if agreement > best or (agreement == best and shift < off):
                best, where, off = agreement, place + 1, shift
        self._start, self._agreement = where, best
        if best >= _MOST_COMPARED:  # the copy goes on: what was before the agreement is over
            self._base, self._said = where - best, said[-best:]

    def _agreement_at(self, place: int) -> int:
        """How many of the last tokens said stand before and at this place."""
        said = self._said
        most = min(_MOST_COMPARED, len(said), place - self._base + 1)
        agreement = 1
        while agreement < most and self._ahead[place - agreement] == said[-1 - agreement]:
            agreement += 1
        return agreement
