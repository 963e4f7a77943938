"""The place of the model that drafts: perhaps empty at first, exchanged between answers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from edgespec.protocols import Drafter
from edgespec.types import Prompt, Proposal


class ModelSlot:
    """Implements `edgespec.protocols.Drafter` around one that may be exchanged; silent without."""

    def __init__(self) -> None:
        self._drafter: Drafter | None = None
        self._read_prompt: Callable[[Prompt], None] = lambda _prompt: None
        self._cleanup = contextlib.ExitStack()

    @property
    def is_empty(self) -> bool:
        """Whether no model drafts."""
        return self._drafter is None

    def put(
        self,
        drafter: Drafter,
        read_prompt: Callable[[Prompt], None],
        cleanup: contextlib.ExitStack,
    ) -> None:
        """Have `drafter` draft from the next answer on; `cleanup` is closed when another comes.

        `read_prompt` is told each prompt as text. The one before was emptied out (`close`).
        """
        self._drafter, self._read_prompt, self._cleanup = drafter, read_prompt, cleanup

    def close(self) -> None:
        """Keep what the drafter learned, and free it."""
        self._drafter, self._read_prompt = None, lambda _prompt: None
        self._cleanup.close()

    def read_prompt(self, prompt: Prompt) -> None:
        """A request came."""
        self._read_prompt(prompt)

    @property
    def name(self) -> str:
        """The name of the drafter within."""
        return self._drafter.name if self._drafter is not None else ""

    @property
    def cost_ms(self) -> float:
        """The cost of the drafter within; 0 without one."""
        return self._drafter.cost_ms if self._drafter is not None else 0.0

    @property
    def start_ms(self) -> float:
        """What the drafter within takes to read before its next guess."""
        return self._drafter.start_ms if self._drafter is not None else 0.0

    @property
    def fertility(self) -> float:
        """The fertility of the drafter within."""
        return self._drafter.fertility if self._drafter is not None else 1.0

    @property
    def outlook(self) -> float:
        """The outlook of the drafter within."""
        return self._drafter.outlook if self._drafter is not None else 1.0

    def begin(self, prompt: Sequence[int]) -> None:
        """Start an answer."""
        if self._drafter is not None:
            self._drafter.begin(prompt)

    def propose(self, prefix: Sequence[int] = ()) -> Iterator[Proposal]:
        """Yield what the drafter within does."""
        if self._drafter is not None:
            yield from self._drafter.propose(prefix)

    def learn(self, proposals: Sequence[Proposal], kept: Sequence[int]) -> None:
        """Calibrate the drafter within."""
        if self._drafter is not None:
            self._drafter.learn(proposals, kept)

    def extend(self, tokens: Sequence[int]) -> None:
        """Tell the drafter within what was kept."""
        if self._drafter is not None:
            self._drafter.extend(tokens)
