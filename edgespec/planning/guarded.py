"""A drafter that may fail: after its first failure it is silent, and the answers go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from edgespec.errors import Cancelled, EdgeSpecError
from edgespec.passes import Kept, Proposal
from edgespec.protocols import FREE, Drafter, DraftSession, Matcher, Quote
from edgespec.reports import Report
from edgespec.types import EncodedPrompt

FAILURES = (EdgeSpecError, ValueError, MemoryError)
"""What a drafter that can guess no more may raise."""


class GuardedDrafter:
    """Implements `edgespec.protocols.Drafter` around another one.

    A guess is only a guess, so a drafter that cannot make any more costs speed and nothing else.
    """

    def __init__(self, drafter: Drafter, report: Report) -> None:
        """`report` gets one line for people when the drafter is given up."""
        self.drafter = drafter
        self.has_failed = False
        self._report = report

    @property
    def name(self) -> str:
        """The name of the drafter within."""
        return self.drafter.name

    def open(
        self, prompt: EncodedPrompt, said: Sequence[int] = (), matcher: Matcher | None = None
    ) -> GuardedSession:
        """Follow an answer, in silence once the drafter has failed."""
        session: list[DraftSession] = []
        self.attempt(lambda: session.append(self.drafter.open(prompt, said, matcher)))
        return GuardedSession(self, session[0] if session else None)

    def attempt(self, act: Callable[[], None]) -> None:
        """Do what may fail, unless something did before."""
        if self.has_failed:
            return
        try:
            act()
        except Cancelled:
            raise
        except FAILURES as error:
            self.give_up(error)

    def give_up(self, error: Exception) -> None:
        """Be silent from here on."""
        self.has_failed = True
        self._report(f"the drafter {self.name} failed and is left out from here on: {error}")


class GuardedSession:
    """Implements `edgespec.protocols.DraftSession` around another one."""

    def __init__(self, owner: GuardedDrafter | None, session: DraftSession | None) -> None:
        """Use `GuardedDrafter.open`; without an owner or a `session` it is silent."""
        self._owner = owner
        self._session = session

    @property
    def quote(self) -> Quote:
        """What the session within asks for; silence costs nothing."""
        session = self._live()
        return session.quote if session is not None else FREE

    @property
    def bridge_ms(self) -> float:
        """That of the session within."""
        session = self._live()
        return session.bridge_ms if session is not None else 0.0

    def propose(self, prefix: Sequence[int] = ()) -> Iterator[Proposal]:
        """Yield what the session within does, up to its first failure."""
        session = self._live()
        if session is None or self._owner is None:
            return
        try:
            yield from session.propose(prefix)
        except Cancelled:
            raise
        except FAILURES as error:
            self._owner.give_up(error)

    def learn(self, kept: Kept) -> None:
        """Tell the session within."""
        session = self._live()
        if session is not None and self._owner is not None:
            self._owner.attempt(lambda: session.learn(kept))

    def close(self) -> None:
        """End the session within."""
        if self._session is not None and self._owner is not None:
            self._owner.attempt(self._session.close)

    def _live(self) -> DraftSession | None:
        return None if self._owner is None or self._owner.has_failed else self._session
