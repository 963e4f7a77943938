"""How probable it is that a guess is kept: counts by kind of evidence, from what really was kept.

A drafter sorts its guesses into numbered kinds (a long match with much support, a short one with
little). Each kind keeps counts of guesses that were right and wrong; the estimate is their
posterior mean under a Beta prior. Old counts fade, so that a change of subject is noticed.

A logistic model over more of a guess's features, learned online beside the counts, was worth less
than a hundredth of the speed (docs/decisions/0013-estimates-and-budgets.md).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np

from edgespec.passes import Proposal

PRIOR_STRENGTH = 8.0
"""How many observations the prior is worth."""

MEMORY = 400.0
"""Observations of one kind after which the oldest count half."""

_FADE = 0.5 ** (1.0 / MEMORY)
_MAGIC = b"ESAC2"
_HEADER = struct.Struct("<II")  # checksum of all that follows it, kinds


NUM_SUPPORTS = 4
"""Classes of support of a continuation that was looked up, see `support_class`."""


def support_class(support: int, total: int) -> int:
    """Class of a continuation that followed `support` of `total` occurrences.

    >>> support_class(1, 3), support_class(2, 3), support_class(1, 1), support_class(3, 3)
    (0, 1, 2, 3)
    """
    if support == total:
        return 2 if total == 1 else 3
    return int(2 * support > total)


class Acceptance:
    """The estimates of one drafter; `estimate` and `observe` take constant time."""

    def __init__(self, prior: Sequence[float]) -> None:
        """`prior[i]` is the acceptance to assume of evidence kind i before any observation."""
        self._prior = [min(max(share, 0.001), 0.999) for share in prior]
        self._right = [0.0] * len(prior)
        self._wrong = [0.0] * len(prior)

    @property
    def num_kinds(self) -> int:
        """Kinds of evidence."""
        return len(self._prior)

    def estimate(self, kind: int) -> float:
        """Probability that a guess of this kind is kept, given that those before it were."""
        right = self._right[kind] + PRIOR_STRENGTH * self._prior[kind]
        return right / (self._right[kind] + self._wrong[kind] + PRIOR_STRENGTH)

    def observe(self, kind: int, kept: bool) -> None:
        """Count one guess of this kind."""
        self._right[kind] = self._right[kind] * _FADE + kept
        self._wrong[kind] = self._wrong[kind] * _FADE + (not kept)

    def learn(self, proposals: Sequence[Proposal], kept: Sequence[int]) -> None:
        """Count the guesses that `kept` judges, to the first wrong one."""
        for proposal, token in zip(proposals, kept, strict=False):
            self.observe(proposal.evidence, proposal.token == token)
            if proposal.token != token:
                return

    def export(self) -> bytes:
        """Everything learned, for keeping: checked and of a fixed length."""
        data = np.array([self._right, self._wrong]).astype("<f8").tobytes()
        checksum = zlib.crc32(_HEADER.pack(0, self.num_kinds) + data)
        return _MAGIC + _HEADER.pack(checksum, self.num_kinds) + data

    def restore(self, data: bytes) -> bool:
        """Take back what `export` gave; False, and nothing changed, for any other bytes."""
        start = len(_MAGIC) + _HEADER.size
        if not data.startswith(_MAGIC) or len(data) < start:
            return False
        checksum, num_kinds = _HEADER.unpack(data[len(_MAGIC) : start])
        is_whole = zlib.crc32(_HEADER.pack(0, num_kinds) + data[start:]) == checksum
        if num_kinds != self.num_kinds or not is_whole:
            return False
        self._right, self._wrong = np.frombuffer(data[start:], "<f8").reshape(2, -1).tolist()
        return True
