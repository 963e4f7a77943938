"""The `grammar` strategy: tokens that the constraint of an answer forces, which are certain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgespec.drafters import Parts
from edgespec.passes import Kept, Proposal
from edgespec.protocols import FREE, Matcher
from edgespec.types import EncodedPrompt

IS_ALWAYS_ASKED = True


def build(_parts: Parts) -> GrammarDrafter:
    """Whether there is a constraint, each answer tells."""
    return GrammarDrafter()


class GrammarDrafter:
    """Implements `edgespec.protocols.Drafter`; it has nothing to say of free text."""

    name = "grammar"

    def open(
        self, _prompt: EncodedPrompt, _said: Sequence[int] = (), matcher: Matcher | None = None
    ) -> GrammarSession:
        """Follow an answer under `matcher`, which follows it by itself."""
        return GrammarSession(matcher)


class GrammarSession:
    """Implements `edgespec.protocols.DraftSession` over what constrains one answer."""

    quote = FREE
    bridge_ms = 0.0

    def __init__(self, matcher: Matcher | None) -> None:
        """None constrains nothing."""
        self._matcher = matcher

    def propose(self, prefix: Sequence[int] = ()) -> Iterator[Proposal]:
        """Yield tokens as long as there is no other one."""
        tokens = list(prefix)
        while self._matcher is not None:
            token = self._matcher.forced(tokens)
            if token is None:
                return
            yield Proposal(token, 1.0)
            tokens.append(token)

    def learn(self, _kept: Kept) -> None:
        """There is nothing to learn: a token that is forced is kept."""

    def close(self) -> None:
        """Nothing to let go of."""
