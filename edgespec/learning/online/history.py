"""Keeps what serves, with what is told of it; a disk that fails costs memory, never an answer."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from edgespec.errors import StorageError
from edgespec.learning.online.adaptations import AdaptationStore, History, Pair, Saved
from edgespec.learning.online.learner import LearnerState
from edgespec.reports import Report

_MEMORY = 2000.0
"""Positions after which the shares of right guesses have forgotten half."""


class AdaptationHistory:
    """One pair's versions: counts what they are judged by, and writes each new one."""

    def __init__(
        self, pair: Pair, store: AdaptationStore | None, history: History, report: Report
    ) -> None:
        """Without a `store` nothing is written; `history` is that of the version on disk."""
        self.history = history
        self._pair = pair
        self._store = store
        self._report = report
        self._seen = min(float(history.num_positions), _MEMORY)

    def count(self, alone: NDArray[np.bool_], served: NDArray[np.bool_]) -> None:
        """Take in what was guessed right of a new text: by the drafter alone, and as served."""
        count = len(alone)
        fade = 0.5 ** (count / _MEMORY)
        seen = self._seen * fade + count
        before, self._seen = self._seen * fade, seen
        shares = [
            (share * before + float(found.sum())) / seen if seen else 0.0
            for share, found in (
                (self.history.share_alone, alone),
                (self.history.share_served, served),
            )
        ]
        self.history = dataclasses.replace(
            self.history,
            num_answers=self.history.num_answers + 1,
            num_positions=self.history.num_positions + count,
            share_alone=shares[0],
            share_served=shares[1],
        )

    def keep(self, state: LearnerState, *, is_new: bool) -> None:
        """Write what was learned; where that fails, this is told once, and it serves all the same.

        `is_new` tells whether a version began to serve, or ceased to.
        """
        if is_new:
            self.history = dataclasses.replace(self.history, version=self.history.version + 1)
        if self._store is None:
            return
        try:
            self._store.save(Saved(self._pair, self.history, state))
        except StorageError as error:
            self._store = None
            self._report(f"{error}; what the drafter learns is not kept")
