"""One answer as examples: what the drafter would have said at each token, and what the target said.

The drafter's tokens of a text and the target's begin at the same byte at some places only. There,
if both write the same token, the target's distribution teaches; elsewhere, only what was said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgespec.learning.online.correction import Floats
from edgespec.learning.online.examples import FLOOR, NO_ROW, NUM_CANDIDATES, Examples, candidates

_MOST_TAUGHT = 16
"""Tokens of the target's distribution that become candidates."""


@dataclass(frozen=True, slots=True, eq=False)
class Distribution:
    """The target's likeliest tokens at one place: ids and log-probabilities, likeliest first."""

    ids: NDArray[np.int32]
    logprobs: Floats


@dataclass(frozen=True, slots=True, eq=False)
class DirectMap:
    """Tokens that both vocabularies write in the same bytes.

    `row_of[token]` is the head row of a target token, `token_of[row]` the target token of a row of
    the head; -1 where there is none.
    """

    row_of: NDArray[np.int32]
    token_of: NDArray[np.int32]

    @staticmethod
    def of(token_of: NDArray[np.int32], num_target_tokens: int) -> DirectMap:
        """The map whose `token_of` is given; of several rows for one token the first counts."""
        row_of = np.full(num_target_tokens, -1, dtype=np.int32)
        rows = np.flatnonzero(token_of >= 0)[::-1]
        row_of[token_of[rows]] = rows
        return DirectMap(row_of, token_of)


@dataclass(frozen=True, slots=True)
class Place:
    """A position of the drafter's text, and what the target said there.

    `row` is the head's row of the drafter's token there, -1 if it has none. `token` is the target's
    token that begins here and `told` its distribution; None where no token of the target begins, or
    nothing is known.
    """

    row: int
    token: int | None = None
    told: Distribution | None = None


def example(
    place: Place, logits: Floats, hidden: Floats, direct: DirectMap, count: int = NUM_CANDIDATES
) -> Examples:
    """One position as an example; `logits` are those of the whole head, the drafter's own."""
    is_direct = (
        place.told is not None and place.row >= 0 and int(direct.token_of[place.row]) == place.token
    )
    wanted = np.array([place.row] if place.row >= 0 else [], dtype=np.int32)
    logprobs = np.full(count, np.nan, dtype=np.float32)
    if is_direct and place.told is not None:
        taught = direct.row_of[place.told.ids[:_MOST_TAUGHT]]
        taught = taught[(taught >= 0) & (taught != place.row)]
        wanted = np.concatenate([wanted, taught])
    rows = candidates(logits, wanted, count)
    if is_direct and place.told is not None:
        logprobs = _logprobs(rows, place.told, direct)
    top = float(logits.max())
    weights = np.exp(logits - top)
    kept = logits[rows] - top
    rest = max(float(weights.sum()) - float(weights[rows].sum()), 1e-9)
    return Examples(
        hidden=hidden.astype(np.float16)[None],
        rows=rows[None],
        logits=kept[None].astype(np.float32),
        rest=np.array([np.log(rest)], dtype=np.float32),
        target_logprobs=logprobs[None],
        truth=np.array([0 if place.row >= 0 else NO_ROW], dtype=np.int32),
        is_direct=np.array([is_direct]),
    )


def _logprobs(rows: NDArray[np.int32], told: Distribution, direct: DirectMap) -> Floats:
    """The target's log-probability of each row's token: FLOOR if untold, NaN without a token."""
    tokens = direct.token_of[rows]
    order = np.argsort(told.ids)
    ids = told.ids[order]
    found = np.minimum(np.searchsorted(ids, tokens), len(ids) - 1)
    is_told = ids[found] == tokens
    logprobs = np.where(is_told, told.logprobs[order][found], FLOOR)
    return np.where(tokens >= 0, logprobs, np.nan).astype(np.float32)


def lesson(
    places: Sequence[Place],
    logits: Sequence[Floats],
    hidden: Sequence[Floats],
    direct: DirectMap,
    count: int = NUM_CANDIDATES,
) -> Examples | None:
    """All positions of an answer in order, with `count` candidates each; None if it has none."""
    parts = [
        example(place, scores, state, direct, count)
        for place, scores, state in zip(places, logits, hidden, strict=True)
    ]
    return Examples.joined(parts) if parts else None
