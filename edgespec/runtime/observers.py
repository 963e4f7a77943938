"""All who observe answers, told one after the other: the one stream of what passes give."""

from __future__ import annotations

from collections.abc import Sequence

from edgespec.passes import Kept
from edgespec.protocols import Observation, Observer
from edgespec.types import Completion, CompletionRequest, EncodedPrompt


class Observers:
    """Implements `edgespec.protocols.Observer` over several.

    The first is told first that an answer begins, and last that it is over: what puts other work
    aside stands before those who use what that work changes.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        """They are told in this order."""
        self._observers = tuple(observers)

    def open(self, request: CompletionRequest, prompt: EncodedPrompt) -> Observations:
        """An answer begins."""
        return Observations([each.open(request, prompt) for each in self._observers])


class Observations:
    """Implements `edgespec.protocols.Observation` over several."""

    def __init__(self, observations: Sequence[Observation]) -> None:
        """They are told in this order."""
        self._observations = tuple(observations)

    def take(self, kept: Kept) -> None:
        """A pass gave the answer something."""
        for each in self._observations:
            each.take(kept)

    def close(self, completion: Completion | None) -> None:
        """The answer is over."""
        for each in reversed(self._observations):
            each.close(completion)
