"""What others do, to be compared with: drafts of a fixed length, and simple ways to look up.

*Prompt lookup* (Saxena 2023): the last 3 tokens stood somewhere before; the 10 that followed there
first are the draft. *Hierarchy drafting* (arXiv 2502.05609): sources in a fixed order, of which the
first that says anything gives the whole draft. Both verify whatever there is, as does `Everything`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from edgespec.passes import Kept, Proposal
from edgespec.planning.growth import Outcome
from edgespec.protocols import FREE, Drafter, DraftSession, Matcher, Quote
from edgespec.types import EncodedPrompt

NUM_MATCHED = 3
"""Tokens that prompt lookup searches for."""

NUM_FOLLOWING = 10
"""Tokens that prompt lookup proposes."""


class Everything(Outcome):
    """Holds whatever was guessed worth a row, and the likelier guess worth asking for."""

    def __init__(self, costs_ms: Sequence[float], num_answers: int, num_rows: int) -> None:
        """As of every outcome."""
        super().__init__(costs_ms, num_answers, num_rows)
        self.best_speed = -1.0  # below that of any draft

    def ask(self, name: str, speed: float) -> None:
        """Nothing is expected of a drafter, so none is billed."""

    def add(self, reach: float) -> None:
        """One more row is computed."""
        self._num_rows += 1
        self.num_added += 1
        self.best_added, self.best_ms = self.num_added, self._costs_ms[self._num_rows - 1]

    def bound(self, reach: float, acceptance: float, room: int, guess_ms: float = 0.0) -> float:
        """The estimate itself: what it costs does not count."""
        return acceptance


class PromptLookup:
    """Implements `edgespec.protocols.Drafter`: prompt lookup decoding."""

    name = "lookup"

    def open(
        self, prompt: EncodedPrompt, said: Sequence[int] = (), _matcher: Matcher | None = None
    ) -> PromptLookupSession:
        """Index the prompt."""
        return PromptLookupSession([*prompt.tokens, *said])


class PromptLookupSession:
    """Implements `edgespec.protocols.DraftSession` over the text of one answer."""

    quote = FREE
    bridge_ms = 0.0

    def __init__(self, text: Sequence[int]) -> None:
        """`text` is what was said so far."""
        self._text: list[int] = []
        self._places: dict[tuple[int, ...], int] = {}  # where what followed first stands
        self._extend(text)

    def propose(self, prefix: Sequence[int] = ()) -> Iterator[Proposal]:
        """Copy what followed."""
        last = (*self._text[-NUM_MATCHED:], *prefix)[-NUM_MATCHED:]
        place = self._places.get(last)
        if place is not None:
            for token in self._text[place : place + NUM_FOLLOWING]:
                yield Proposal(token, 1.0)

    def learn(self, kept: Kept) -> None:
        """Append what was said."""
        self._extend(kept.tokens)

    def close(self) -> None:
        """Nothing to let go of."""

    def _extend(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            self._places.setdefault(tuple(self._text[-NUM_MATCHED:]), len(self._text))
            self._text.append(token)


class FirstToSpeak:
    """Implements `edgespec.protocols.Drafter` over several that are asked in a fixed order."""

    name = "hierarchy"

    def __init__(self, drafters: Sequence[Drafter]) -> None:
        """The first is asked first."""
        self._drafters = tuple(drafters)

    def open(
        self, prompt: EncodedPrompt, said: Sequence[int] = (), matcher: Matcher | None = None
    ) -> FirstToSpeakSession:
        """Have all follow an answer."""
        return FirstToSpeakSession(
            [(each.name, each.open(prompt, said, matcher)) for each in self._drafters]
        )


class FirstToSpeakSession:
    """Implements `edgespec.protocols.DraftSession`; none of its drafters learns of its guesses."""

    quote = FREE
    bridge_ms = 0.0

    def __init__(self, sessions: Sequence[tuple[str, DraftSession]]) -> None:
        """Sessions with their drafters' names."""
        self._sessions = sessions

    def propose(self, prefix: Sequence[int] = ()) -> Iterator[Proposal]:
        """Yield what the first says that says anything."""
        for name, session in self._sessions:
            has_spoken = False
            for guess in session.propose(prefix):
                has_spoken = True
                yield dataclasses.replace(guess, source=guess.source or name)
            if has_spoken:
                return

    def learn(self, kept: Kept) -> None:
        """Have all follow."""
        for _, session in self._sessions:
            session.learn(kept)

    def close(self) -> None:
        """The answer is over."""
        for _, session in self._sessions:
            session.close()


class Unlearning:
    """Implements `edgespec.protocols.Drafter` around one that is not told which guesses were kept.

    Its estimates stay what they are.
    """

    def __init__(self, drafter: Drafter) -> None:
        """The drafter that follows answers."""
        self.name = drafter.name
        self._drafter = drafter

    def open(
        self, prompt: EncodedPrompt, said: Sequence[int] = (), matcher: Matcher | None = None
    ) -> UnlearningSession:
        """Follow an answer."""
        return UnlearningSession(self._drafter.open(prompt, said, matcher))


class UnlearningSession:
    """Implements `edgespec.protocols.DraftSession` around another one."""

    def __init__(self, session: DraftSession) -> None:
        """The session that follows the answer."""
        self._session = session
        self.propose, self.close = session.propose, session.close

    @property
    def quote(self) -> Quote:
        """What the session within asks for."""
        return self._session.quote

    @property
    def bridge_ms(self) -> float:
        """That of the session within."""
        return self._session.bridge_ms

    def learn(self, kept: Kept) -> None:
        """Tell what was said, and nothing of guesses."""
        self._session.learn(dataclasses.replace(kept, guesses={}))
