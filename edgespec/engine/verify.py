"""Sample and compare: the exactness of speculation in one loop.

At each row of a verified draft the target's token is drawn as plain decoding would draw it: same
chain, same random stream, one draw per emitted token. If a node of the draft says that token, the
draw goes on at the node's row; where none does, the pass ends, and the target's own token stands.
Hence no draft probabilities, no rollback of samplers, and the same tokens for any drafter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgespec.errors import EdgeSpecError
from edgespec.passes import Draft
from edgespec.protocols import Sampler, Target


@dataclass(frozen=True, slots=True)
class Verified:
    """What one pass emits: the tokens of the nodes of `path`, then one of the target's own.

    `ends` is True if that one ends the answer; nodes that would have followed it are not in `path`.
    Where the sampler could not go on, `error` says why, and the tokens are those of `path`.
    """

    tokens: tuple[int, ...]
    path: tuple[int, ...]
    ends: bool = False
    error: EdgeSpecError | None = None


def verify(
    target: Target, sampler: Sampler, draft: Draft, first_row: int, is_end: Callable[[int], bool]
) -> Verified:
    """The tokens that the target says after the last pass.

    Output row `first_row` follows the last kept token, the rows after it the nodes of the draft.
    For the chain (5, 6, 7), where the target says 5, 6, 9, the pass emits (5, 6, 9) and its path
    is (0, 1).
    """
    tokens: list[int] = []
    path: list[int] = []
    node: int | None = -1
    while node is not None:
        try:
            token = sampler.sample(target, first_row + 1 + node)
        except EdgeSpecError as error:
            return Verified(tuple(tokens), tuple(path), error=error)
        tokens.append(token)
        if is_end(token):
            return Verified(tuple(tokens), tuple(path), ends=True)
        node = draft.child(node, token)
        if node is not None:
            path.append(node)
    return Verified(tuple(tokens), tuple(path))
