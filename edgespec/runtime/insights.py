"""What front ends show of speed: what the engine knows, and what was measured on this machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from edgespec.machine.available import load_average
from edgespec.machine.facts import ModelFacts
from edgespec.passes import Kept
from edgespec.types import Completion, CompletionRequest, EncodedPrompt, Insight


class Insights:
    """Implements `edgespec.protocols.Observer` and `Observation`: notes how busy the machine is."""

    def __init__(
        self,
        facts: Callable[[], ModelFacts],
        doing: Callable[[], str],
        load_average: Callable[[], float | None] = load_average,
    ) -> None:
        """`facts` of the target as they are now; `doing` tells idle work."""
        self._facts = facts
        self._doing = doing
        self._load_average = load_average
        self._had_plain = False
        self._busy: float | None = None

    def open(self, _request: CompletionRequest, _prompt: EncodedPrompt) -> Insights:
        """An answer begins."""
        return self

    def take(self, kept: Kept) -> None:
        """A pass is over; one of a single row tells what plain decoding takes."""
        self._had_plain |= kept.record.num_pass_rows == 1 and kept.record.predicted_ms > 0

    def close(self, _completion: Completion | None) -> None:
        """An answer is over."""
        if self._had_plain:
            self._busy, self._had_plain = self._load_average(), False

    def complete(self, insight: Insight) -> Insight:
        """Add what the engine does not know; from any thread."""
        facts = self._facts()
        return dataclasses.replace(
            insight,
            is_provisional=facts.is_provisional,
            spread=facts.spread,
            load_average=self._busy,
            idle=self._doing(),
        )
