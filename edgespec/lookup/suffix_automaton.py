"""A suffix automaton over a growing token sequence, with support counts.

Theory of operation. A state stands for a set of strings that end at the same positions of the text;
its longest string has length `length`. `link` leads to the state of the longest suffix that
occurs at more positions. Appending a token adds one or two states (Blumer et al. 1985), amortized
constant time. The state of the whole text is `last`; `link[last]` is therefore the longest suffix
of the text that occurred before: the longest match, of any length, without a scan.

Support. Occurrences of a state's strings are counted as the text grows: every state on the link
path of `last` gains one. Paths are short in natural text; in periodic text they can be as long as
the text, so the walk stops after MAX_LINKS states and a token stays constant time. Only the
shortest suffixes of periodic text are then undercounted.

>>> automaton = SuffixAutomaton()
>>> automaton.extend([1, 2, 3, 9, 1, 2])
>>> match = automaton.longest_match()
>>> match.length, automaton.continuation(match)
(2, Continuation(token=3, length=3, support=1, total=1))
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

ROOT = 0
MAX_LINKS = 64
"""Most states whose support is updated per appended token."""


@dataclass(frozen=True, slots=True)
class Match:
    """A place in the automaton: a string of `length` tokens that occurs in the text."""

    state: int
    length: int


@dataclass(frozen=True, slots=True)
class Continuation:
    """The token that most often followed a match; of equals, the one that followed it last.

    `support` of the `total` occurrences that had a next token had this one; `length` is the length
    of the match extended by it. `state` is where the extended match stands.
    """

    token: int
    length: int
    support: int
    total: int
    state: int = field(default=ROOT, repr=False, compare=False)


class SuffixAutomaton:
    """Append tokens, ask for the longest earlier match of the text's end and what followed it."""

    def __init__(self) -> None:
        self.num_tokens = 0
        self._last = ROOT
        self._length = [0]
        self._link = [-1]
        self._next: list[dict[int, int]] = [{}]
        self._support = [0]
        self._end = [0]  # one past the last position at which the state's strings ended

    def extend(self, tokens: Iterable[int]) -> None:
        """Append `tokens`; amortized constant time each."""
        for token in tokens:
            self._append(token)
            self._count()

    def longest_match(self, following: Iterable[int] = ()) -> Match:
        """The longest suffix of the text, and of what may follow it, that occurred before.

        Length 0 if there is none. `following` is not appended.
        """
        state = max(self._link[self._last], ROOT)
        length = self._length[state]
        for token in following:
            while state != ROOT and token not in self._next[state]:
                state = self._link[state]
                length = self._length[state]
            if token in self._next[state]:
                state = self._next[state][token]
                length += 1
        return Match(state, length)

    def continuation(self, match: Match) -> Continuation | None:
        """What most often followed `match`, or None if nothing ever did."""
        followers = self._next[match.state]
        if not followers:
            return None
        support, end = self._support, self._end
        token, state = max(followers.items(), key=lambda item: (support[item[1]], end[item[1]]))
        total = sum(support[follower] for follower in followers.values())
        return Continuation(token, match.length + 1, support[state], total, state)

    def place_of(self, guess: Continuation) -> int:
        """Where in the text the token of `guess` last stood after its match."""
        return self._end[guess.state] - 1

    def shorten(self, match: Match) -> Match | None:
        """The longest proper suffix of `match` that occurs more often, or None at the root."""
        link = self._link[match.state]
        return Match(link, self._length[link]) if link > ROOT else None

    def _append(self, token: int) -> None:
        self.num_tokens += 1
        current = self._add_state(self._length[self._last] + 1, {}, 0)
        state = self._last
        while state != -1 and token not in self._next[state]:
            self._next[state][token] = current
            state = self._link[state]
        self._last = current
        if state == -1:
            self._link[current] = ROOT
            return
        follower = self._next[state][token]
        if self._length[follower] == self._length[state] + 1:
            self._link[current] = follower
        else:
            self._link[current] = self._split(state, token, follower)

    def _split(self, state: int, token: int, follower: int) -> int:
        """Give the shorter strings of `follower` a state of their own."""
        clone = self._add_state(
            self._length[state] + 1, dict(self._next[follower]), self._support[follower]
        )
        self._end[clone] = self._end[follower]
        self._link[clone] = self._link[follower]
        self._link[follower] = clone
        while state != -1 and self._next[state].get(token) == follower:
            self._next[state][token] = clone
            state = self._link[state]
        return clone

    def _add_state(self, length: int, followers: dict[int, int], support: int) -> int:
        self._length.append(length)
        self._link.append(-1)
        self._next.append(followers)
        self._support.append(support)
        self._end.append(self.num_tokens)
        return len(self._length) - 1

    def _count(self) -> None:
        state = self._last
        for _ in range(MAX_LINKS):
            if state <= ROOT:
                return
            self._support[state] += 1
            self._end[state] = self.num_tokens
            state = self._link[state]
