"""How drafts grow within one pass: guesses pulled lazily, and what each further row is worth."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from edgespec.passes import Draft, Guesses, Proposal
from edgespec.protocols import DraftSession, Matcher, Quote

MIN_GAIN = 1.05
"""A draft is verified only if its answer is expected to be this many times as fast as without; a
pass that several share is faster by as much less."""


class Outcome:
    """What the drafts of a pass are expected to give so far, and which length was best."""

    def __init__(self, costs_ms: Sequence[float], num_answers: int, num_rows: int) -> None:
        """`costs_ms[r - 1]` is T(r); undrafted the pass has `num_rows`, at least one an answer."""
        self._costs_ms = costs_ms
        self._num_rows = num_rows
        self._expected = float(num_answers)
        self._spent_ms = 0.0
        self._plain_speed = num_answers / costs_ms[num_rows - 1]
        self.num_added = 0
        self.best_added = 0
        self.best_speed = (1.0 + (MIN_GAIN - 1.0) / num_answers) * self._plain_speed
        self.best_ms = costs_ms[num_rows - 1]
        self.speed_without: dict[str, float] = {}

    @property
    def has_room(self) -> bool:
        """Whether the pass may have another row."""
        return self._num_rows < len(self._costs_ms)

    def ask(self, name: str, speed: float) -> None:
        """A drafter that costs time is asked; a free guess at this place promises `speed`."""
        if name not in self.speed_without:
            known = self.best_speed if self.best_added else self._plain_speed
            self.speed_without[name] = max(known, speed)

    def spend(self, guess_ms: float) -> None:
        """A guess was pulled."""
        self._spent_ms += guess_ms

    def add(self, reach: float) -> None:
        """One more row is computed, for a token that is kept with probability `reach`."""
        self._num_rows += 1
        self.num_added += 1
        self._expected += reach
        pass_ms = self._costs_ms[self._num_rows - 1]
        speed = self._expected / (self._spent_ms + pass_ms)
        if speed > self.best_speed:
            self.best_added, self.best_speed, self.best_ms = self.num_added, speed, pass_ms

    def bound(self, reach: float, acceptance: float, room: int, guess_ms: float = 0.0) -> float:
        """Speed of the best pass with up to `room` more rows of one answer.

        Each further guess of it has this estimate and cost; `reach` is that of its last row.
        """
        best, expected, spent = 0.0, self._expected, self._spent_ms
        for cost in self._costs_ms[self._num_rows : self._num_rows + room]:
            reach *= acceptance
            expected += reach
            spent += guess_ms
            best = max(best, expected / (spent + cost))
        return best


class Growth:
    """The draft of one answer while it grows, row by row."""

    def __init__(
        self,
        sessions: Sequence[tuple[str, DraftSession, float]],
        outcome: Outcome,
        room: int,
        clock: Callable[[], float],
        matcher: Matcher | None = None,
    ) -> None:
        """At most `room` rows are added; each drafter may take so many milliseconds for guesses.

        `clock` gives seconds. A guess that `matcher` refuses ends what its drafter says.
        """
        self._outcome = outcome
        self._room = room
        self._clock = clock
        lanes = [
            _Lane(name, session, session.quote, most, matcher) for name, session, most in sessions
        ]
        self._lanes = sorted(lanes, key=lambda lane: lane.quote.guess_ms)
        self._tokens: list[int] = []
        self._rows: list[tuple[Proposal, str, int]] = []  # and how many rows the pass had then
        self._reach = 1.0
        self._next: tuple[Proposal, str] | None = None
        self.drafter_ms: dict[str, float] = defaultdict(float)
        self.start_ms: dict[str, float] = {}

    @property
    def next_reach(self) -> float:
        """Probability that the next guess is kept; after `look_ahead` was True."""
        return self._reach * self._next[0].acceptance if self._next is not None else 0.0

    def look_ahead(self) -> bool:
        """Know the likeliest next guess; False if there is no room, or none that may pay."""
        if self._next is None and len(self._tokens) < self._room:
            self._next = self._next_guess()
        return self._next is not None

    def advance(self) -> None:
        """Take the next guess into the draft."""
        assert self._next is not None
        self._reach = self.next_reach
        self._outcome.add(self._reach)
        guess, name = self._next
        self._next = None
        self._tokens.append(guess.token)
        self._rows.append((guess, name, self._outcome.num_added))
        for lane in self._lanes:
            lane.advance(guess.token)

    def draft(self) -> Draft:
        """What of it is in the best pass."""
        best = [(guess, name) for guess, name, at in self._rows if at <= self._outcome.best_added]
        return Draft(
            tuple(guess.token for guess, _ in best),
            tuple(range(-1, len(best) - 1)),
            tuple(guess.acceptance for guess, _ in best),
            tuple(guess.source or name for guess, name in best),
        )

    @property
    def bridge_ms(self) -> float:
        """What of the drafters' time went into other vocabularies."""
        return sum(lane.session.bridge_ms for lane in self._lanes if lane.was_asked)

    def guesses(self) -> dict[str, tuple[Guesses, ...]]:
        """All that was pulled, by drafter."""
        return {lane.name: pulled for lane in self._lanes if (pulled := lane.pulled())}

    def _next_guess(self) -> tuple[Proposal, str] | None:
        """The likeliest guess of what follows, with its source; None if none may pay."""
        best: tuple[Proposal, str] | None = None
        likely = -1.0
        for lane in self._lanes:
            if self._is_worth_asking(lane, likely):
                guess = self._peek(lane)
                if guess is not None and guess.acceptance > likely:
                    best, likely = (guess, lane.name), guess.acceptance
        return best

    def _is_worth_asking(self, lane: _Lane, likely: float) -> bool:
        """Whether a drafter may add to the best free guess, of estimate `likely`, at this place."""
        outcome, quote = self._outcome, lane.quote
        room = self._room - len(self._tokens)
        if not quote.guess_ms:
            return not self._tokens or outcome.bound(self._reach, 1.0, room) > outcome.best_speed
        is_pulled = lane.num_pulled > 0 and not lane.knows_next
        if is_pulled and (lane.num_pulled + 1) * quote.guess_ms > lane.most_ms:
            return False
        with_it = outcome.bound(self._reach, quote.expected, room, quote.guess_ms)
        without = outcome.bound(self._reach, likely, room) if likely >= 0 else 0.0
        if with_it <= max(outcome.best_speed, without):
            return False
        outcome.ask(lane.name, without)
        return True

    def _peek(self, lane: _Lane) -> Proposal | None:
        """What a drafter says next; its time is taken."""
        if lane.knows_next:
            return lane.peek(self._tokens)
        if not lane.was_asked:
            self.start_ms[lane.name] = lane.quote.start_ms
        started = self._clock()
        guess = lane.peek(self._tokens)
        self.drafter_ms[lane.name] += (self._clock() - started) * 1e3
        if guess is not None:
            self._outcome.spend(lane.quote.guess_ms)
        return guess


@dataclass(slots=True)
class _Lane:
    """One drafter while a draft grows: its guesses as long as the draft follows them."""

    name: str
    session: DraftSession
    quote: Quote
    most_ms: float
    matcher: Matcher | None
    num_pulled: int = 0
    was_asked: bool = False
    _start: int = 0
    _guesses: list[Proposal] = field(default_factory=list)
    _iterator: Iterator[Proposal] | None = None
    _num_followed: int = 0
    _finished: list[Guesses] = field(default_factory=list)

    @property
    def knows_next(self) -> bool:
        """Whether what it says next has been pulled."""
        return self._num_followed < len(self._guesses)

    def peek(self, tokens: Sequence[int]) -> Proposal | None:
        """What the drafter says after `tokens`; asks it, at its cost, unless it has said so."""
        if self._iterator is None:
            self._start = len(tokens)
            self._iterator = self.session.propose(tuple(tokens))
            self.was_asked = True
        if not self.knows_next:
            guess = next(self._iterator, None)
            if guess is None or (self.matcher and not self.matcher.takes(tokens, guess.token)):
                self._iterator = iter(())
                return None
            self._guesses.append(guess)
            self.num_pulled += 1
        return self._guesses[self._num_followed]

    def advance(self, token: int) -> None:
        """The draft grew by `token`; guesses that say otherwise end here."""
        if self.knows_next and self._guesses[self._num_followed].token == token:
            self._num_followed += 1
        elif self._iterator is not None:
            self._finish()

    def pulled(self) -> tuple[Guesses, ...]:
        """All that the drafter said."""
        self._finish()
        return tuple(self._finished)

    def _finish(self) -> None:
        if self._guesses:
            self._finished.append(Guesses(self._start, tuple(self._guesses)))
        self._guesses, self._iterator, self._num_followed = [], None, 0
