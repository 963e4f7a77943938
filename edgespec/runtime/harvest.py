"""What a target knew while it answered, gathered pass by pass for those who learn from it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edgespec.learning.corpus import States, Top, packed, top_of
from edgespec.passes import Kept
from edgespec.types import Completion, CompletionRequest, EncodedPrompt

Gathered = Callable[[CompletionRequest, Completion, "Gleaning"], None]
"""Told of each answer that is over, with what was gathered of it."""


class Harvester:
    """Implements `edgespec.protocols.Observer`: gathers what the target knows."""

    def __init__(self, gathered: Gathered, *, with_states: bool) -> None:
        """`with_states` gathers hidden states, which the context must give."""
        self._gathered = gathered
        self._with_states = with_states

    def open(self, request: CompletionRequest, _prompt: EncodedPrompt) -> Gleaning:
        """An answer begins."""
        return Gleaning(request, self._gathered, with_states=self._with_states)


class Gleaning:
    """Implements `edgespec.protocols.Observation`: what the target knew at each token so far."""

    def __init__(
        self, request: CompletionRequest, gathered: Gathered, *, with_states: bool
    ) -> None:
        self._request = request
        self._done = gathered
        self._with_states = with_states
        self._top: list[tuple[NDArray[np.int32], NDArray[np.float16]]] = []
        self._states: list[tuple[NDArray[np.int8], np.float16]] = []

    def take(self, kept: Kept) -> None:
        """A pass gave the answer something."""
        for index in range(len(kept.tokens)):
            self._top.append(top_of(kept.logits(index)))
            if self._with_states:
                self._states.append(packed(kept.hidden_state(index)))

    def close(self, completion: Completion | None) -> None:
        """The answer is over."""
        if completion is not None and completion.token_ids:
            self._done(self._request, completion, self)

    @property
    def top(self) -> Top:
        """The likeliest tokens at each place."""
        tokens, logprobs = zip(*self._top, strict=True)
        return Top(np.stack(tokens), np.stack(logprobs))

    @property
    def states(self) -> States | None:
        """The hidden states at each place; None if they are not gathered."""
        if not self._with_states:
            return None
        values, scales = zip(*self._states, strict=True)
        return States(np.stack(values), np.array(scales, np.float16))
