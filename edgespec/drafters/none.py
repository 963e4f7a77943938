"""The trivial strategy: never propose anything (plain decoding)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgespec.types import Proposal


class NoDrafter:
    """Implements `edgespec.protocols.Drafter` by proposing nothing."""

    name = "none"
    cost_ms = 0.0
    start_ms = 0.0
    fertility = 1.0
    outlook = 0.0

    def begin(self, prompt: Sequence[int]) -> None:
        """Nothing to prepare."""

    def propose(self, prefix: Sequence[int] = ()) -> Iterator[Proposal]:
        """Yield nothing."""
        return iter(())

    def learn(self, proposals: Sequence[Proposal], kept: Sequence[int]) -> None:
        """Nothing to learn."""

    def extend(self, tokens: Sequence[int]) -> None:
        """Nothing to remember."""
