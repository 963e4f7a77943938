"""The `context` strategy: what followed the same words before, in this conversation.

The longest suffix of the text that occurred before is followed by its most supported continuation,
token after token. A guess is judged by how long the match before it is and by how unanimous the
earlier occurrences were. Where a long copy broke off, its source goes on guessing
(`edgespec.lookup.resumption`) until something matches again.
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from edgespec.drafters import Parts
from edgespec.estimates.acceptance import NUM_SUPPORTS, Acceptance, support_class
from edgespec.lookup.resumption import AHEAD, MIN_COPIED, PRIOR, Resumption
from edgespec.lookup.suffix_automaton import Continuation, Match, SuffixAutomaton
from edgespec.lookup.surest import surest
from edgespec.passes import Kept, Proposal
from edgespec.protocols import FREE, Matcher
from edgespec.types import EncodedPrompt

_LENGTHS = (1, 2, 3, 4, 6, 9, 14, 22)
"""Lower bounds of the classes of match lengths."""

# Share of guesses that the default target kept, by length (rows) and support (columns): measured
# over answers to prompts of 17 kinds, smoothed where there were few. Only a start, see `learn`.
_PRIOR = (
    (0.10, 0.25, 0.27, 0.45),
    (0.12, 0.38, 0.49, 0.63),
    (0.20, 0.45, 0.62, 0.77),
    (0.25, 0.48, 0.74, 0.84),
    (0.30, 0.55, 0.86, 0.92),
    (0.35, 0.60, 0.92, 0.95),
    (0.40, 0.65, 0.95, 0.96),
    (0.45, 0.70, 0.98, 0.98),
)


_NUM_COPIED = len(_LENGTHS) * NUM_SUPPORTS

_SAFELY_COPIED = 14
"""A copy of this length needs no more help from one that broke off before."""


_BREAK = -1
"""Stands between texts that do not follow one another; no token has this number."""

_MOST_INDEXES = 4
"""Conversations whose index is kept, for the next turn of each."""


IS_ALWAYS_ASKED = True


def build(_parts: Parts) -> ContextDrafter:
    """There is always a conversation."""
    return ContextDrafter()


class ContextDrafter:
    """Implements `edgespec.protocols.Drafter` by looking into the conversation itself."""

    name = "context"

    def __init__(self) -> None:
        """Begin with no conversation."""
        self.calibration = new_calibration()
        self._indexes: deque[ConversationIndex] = deque(maxlen=_MOST_INDEXES)

    def open(
        self, prompt: EncodedPrompt, said: Sequence[int] = (), _matcher: Matcher | None = None
    ) -> ContextSession:
        """Index the prompt; an earlier conversation that it continues is not indexed again."""
        text = (*prompt.tokens, *said)
        if prompt.prediction:
            return self._expecting(prompt.prediction, text)
        index = next((each for each in self._indexes if each.is_beginning_of(text)), None)
        if index is None:
            index = ConversationIndex()
        else:
            self._indexes.remove(index)
        index.extend(text[len(index.text) :])
        return ContextSession(index, self.calibration, self._indexes.append)

    def _expecting(self, prediction: Sequence[int], text: Sequence[int]) -> ContextSession:
        """Look into `prediction` as well, which the answer is to begin with."""
        index = ConversationIndex()
        index.extend((*prediction, _BREAK, *text))
        return ContextSession(index, self.calibration, _forget, Resumption(prediction))


class ConversationIndex:
    """A conversation's tokens and where each of their substrings stands."""

    def __init__(self) -> None:
        """Begin with no tokens."""
        self.text: list[int] = []
        self.automaton = SuffixAutomaton()

    def is_beginning_of(self, text: Sequence[int]) -> bool:
        """Whether `text` is this conversation, or goes on from it."""
        return len(self.text) <= len(text) and self.text == list(text[: len(self.text)])

    def extend(self, tokens: Sequence[int]) -> None:
        """Append tokens."""
        self.automaton.extend(tokens)
        self.text.extend(tokens)


class ContextSession:
    """Implements `edgespec.protocols.DraftSession` over the index of one conversation."""

    quote = FREE
    bridge_ms = 0.0

    def __init__(
        self,
        index: ConversationIndex,
        calibration: Acceptance,
        give_back: Callable[[ConversationIndex], None],
        resumption: Resumption | None = None,
    ) -> None:
        """`give_back` gets the index when the answer is over; `resumption` is what may go on."""
        self._index = index
        self._calibration = calibration
        self._give_back = give_back
        self._source: int | None = None  # where in the text the next token of a copy stands
        self._num_copied = 0
        self._resumption = resumption

    def propose(self, prefix: Sequence[int] = ()) -> Iterator[Proposal]:
        """Follow what is surest; ends where nothing ever followed."""
        if self._resumption is None:
            return self._copied(prefix)
        return surest([self._copied(prefix), self._resumed(self._resumption, prefix)])

    def learn(self, kept: Kept) -> None:
        """Count every guess that the target's answer judged, and append what it said."""
        for proposals, tokens in kept.guesses_of(ContextDrafter.name):
            self._calibration.learn(proposals, tokens)
        for token in kept.tokens:
            self._follow(token)
            self._index.extend((token,))
            if self._source is None:
                self._find_source()

    def close(self) -> None:
        """Leave the index to the next turn of the conversation."""
        self._give_back(self._index)

    def _copied(self, prefix: Sequence[int]) -> Iterator[Proposal]:
        """Follow the longest match of the text and `prefix`."""
        automaton = self._index.automaton
        match: Match | None = automaton.longest_match(prefix)
        while match is not None and match.length > 0:
            guess = automaton.continuation(match)
            if guess is None or guess.token == _BREAK:
                match = automaton.shorten(match)
                continue
            kind = evidence_kind(guess)
            yield Proposal(guess.token, self._calibration.estimate(kind), kind)
            match = Match(guess.state, guess.length)

    def _resumed(self, resumption: Resumption, prefix: Sequence[int]) -> Iterator[Proposal]:
        """Follow the source of a copy that broke off."""
        for step in resumption.steps(prefix):
            if step.token == _BREAK:
                return
            kind = _NUM_COPIED + step.kind
            yield Proposal(step.token, self._calibration.estimate(kind), kind)

    def _follow(self, token: int) -> None:
        """Go on with the copy under way, or note that it broke off here."""
        text = self._index.text
        if self._source is not None:
            if text[self._source] == token:
                self._source += 1
                self._num_copied += 1
            else:
                self._resumption = Resumption(text[self._source : self._source + AHEAD])
                self._source, self._num_copied = None, 0
        if self._resumption is not None:
            self._resumption.take(token)
            if not self._resumption.is_alive or self._num_copied >= _SAFELY_COPIED:
                self._resumption = None

    def _find_source(self) -> None:
        """See whether the last tokens are a copy."""
        self._num_copied = 0
        automaton = self._index.automaton
        match = automaton.longest_match()
        if match.length >= MIN_COPIED:
            guess = automaton.continuation(match)
            if guess is not None:
                self._source = automaton.place_of(guess)
                self._num_copied = match.length


def _forget(_index: ConversationIndex) -> None:
    """An index that no other answer can use."""


def new_calibration() -> Acceptance:
    """Estimates by the kinds of evidence of this strategy, with their measured prior."""
    return Acceptance([*(share for row in _PRIOR for share in row), *PRIOR])


def evidence_kind(guess: Continuation) -> int:
    """Number of the class of evidence behind a copied guess, 0 to 31; resumed ones follow."""
    length = bisect.bisect_right(_LENGTHS, max(guess.length - 1, 1)) - 1
    return length * NUM_SUPPORTS + support_class(guess.support, guess.total)
