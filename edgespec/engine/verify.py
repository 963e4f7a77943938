"""Sample and compare: the exactness of speculation in one loop.

At each row of a verified draft the target's token is drawn as plain decoding would draw it: same
chain, same random stream, one draw per emitted token. The draft's next token is kept if it is that
token; the first difference ends the pass, and the target's own token stands. Hence no draft
probabilities, no rollback of samplers, and the same tokens for any drafter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgespec.protocols import Sampler, Target
from edgespec.types import Draft

TokenHook = Callable[[int, int], bool]
"""Called with each emitted token and its row; True ends the answer after that token."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What one pass emits, and whether the answer ends with it."""

    tokens: tuple[int, ...]
    ended: bool


def verify(target: Target, sampler: Sampler, draft: Draft, is_last: TokenHook) -> Verified:
    """The tokens that the target says after the last pass: kept draft tokens, then one of its own.

    Row 0 of the pass follows the last kept token, row i follows draft token i - 1. For the draft
    (5, 6, 7), where the target says 5, 6, 9, the pass emits (5, 6, 9).
    """
    emitted: list[int] = []
    ended = False
    for row in range(len(draft) + 1):
        token = sampler.sample(target, row)
        emitted.append(token)
        ended = is_last(token, row)
        if ended or row == len(draft) or token != draft.tokens[row]:
            break
    return Verified(tuple(emitted), ended)
