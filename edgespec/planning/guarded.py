"""A drafter that may fail: after its first failure it is silent, and the answer goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from edgespec.errors import Cancelled, EdgeSpecError
from edgespec.protocols import Drafter
from edgespec.types import Proposal


class GuardedDrafter:
    """Implements `edgespec.protocols.Drafter` around another one.

    A guess is only a guess, so a drafter that cannot make any more costs speed and nothing else.
    """

    def __init__(self, drafter: Drafter, report: Callable[[str], None]) -> None:
        """`report` gets one line for people when the drafter is given up."""
        self.drafter = drafter
        self.has_failed = False
        self._report = report

    @property
    def name(self) -> str:
        """The name of the drafter within."""
        return self.drafter.name

    @property
    def cost_ms(self) -> float:
        """The cost of the drafter within; 0 once it is given up."""
        return 0.0 if self.has_failed else self.drafter.cost_ms

    @property
    def start_ms(self) -> float:
        """What the drafter within takes to read before its next guess."""
        return 0.0 if self.has_failed else self.drafter.start_ms

    @property
    def fertility(self) -> float:
        """The fertility of the drafter within."""
        return self.drafter.fertility

    @property
    def outlook(self) -> float:
        """The outlook of the drafter within."""
        return self.drafter.outlook

    def begin(self, prompt: Sequence[int]) -> None:
        """Start an answer."""
        self._try(lambda: self.drafter.begin(prompt))

    def propose(self, prefix: Sequence[int] = ()) -> Iterator[Proposal]:
        """Yield what the drafter within does, up to its first failure."""
        if self.has_failed:
            return
        try:
            yield from self.drafter.propose(prefix)
        except Cancelled:
            raise
        except (EdgeSpecError, ValueError, MemoryError) as error:
            self._give_up(error)

    def learn(self, proposals: Sequence[Proposal], kept: Sequence[int]) -> None:
        """Calibrate the drafter within."""
        self._try(lambda: self.drafter.learn(proposals, kept))

    def extend(self, tokens: Sequence[int]) -> None:
        """Tell the drafter within what was kept."""
        self._try(lambda: self.drafter.extend(tokens))

    def _try(self, act: Callable[[], None]) -> None:
        if self.has_failed:
            return
        try:
            act()
        except (EdgeSpecError, ValueError, MemoryError) as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self.has_failed = True
        self._report(f"the drafter {self.name} failed and is left out from here on: {error}")
