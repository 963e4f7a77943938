"""T(r): what one target pass over r rows costs, measured once and refined from real passes.

The curve is neither flat nor smooth, and it has steps where kernels change, so it is a table: one
cost per number of rows at two context lengths, straight lines between. What the longer context adds
is smooth, so steps measured at the short one alone show at the long one as well. Machines drift by
tens of per cent within minutes while the curve's shape holds, so real passes move two things:
`drift`, one factor for all rows, which plain passes set; and a factor for each number of rows
beyond one, which passes of that many rows set, and half as much their neighbours. Each pass moves
them by a tenth of its error, and outliers count as smaller errors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_RATE = 0.1
_LARGEST_ERROR = 0.3  # natural logarithm: about a third more or less
_DRIFT_SHARE = 0.25  # of the error of a pass of several rows
_SHAPE_LIMIT = math.log(2.0)


@dataclass(frozen=True, slots=True)
class CostTable:
    """Milliseconds of a pass by number of rows, at two context lengths (tokens)."""

    short_context: int
    long_context: int
    short_ms: Mapping[int, float]
    long_ms: Mapping[int, float]

    def __post_init__(self) -> None:
        if 1 not in self.short_ms or 1 not in self.long_ms:
            raise ValueError("a cost table needs the cost of one row at both context lengths")
        if not self.short_context < self.long_context:
            raise ValueError(f"contexts {self.short_context} and {self.long_context} do not ascend")


class CostModel:
    """Predicts pass times and refines them; `max_rows` bounds both."""

    def __init__(self, table: CostTable, max_rows: int) -> None:
        """Interpolate `table` for 1 to `max_rows` rows."""
        self.table = table
        self.max_rows = max_rows
        rows = np.arange(1, max_rows + 1)
        self._short = _interpolate(table.short_ms, rows)
        in_both = table.short_ms.keys() & table.long_ms.keys()
        added = {count: table.long_ms[count] - table.short_ms[count] for count in in_both}
        slope = _interpolate(added, rows) / (table.long_context - table.short_context)
        self._slope = np.maximum(slope, 0.0)
        self._log_shape = np.zeros(max_rows)
        self._log_drift = 0.0

    def pass_ms(self, rows: int, context: int) -> float:
        """Expected milliseconds of a pass over `rows` rows after `context` cached tokens."""
        return float(self.curve_ms(context)[rows - 1])

    def curve_ms(self, context: int) -> NDArray[np.float64]:
        """Expected milliseconds for 1, 2, ... `max_rows` rows: shape (max_rows,), float64."""
        base = self._short + self._slope * (context - self.table.short_context)
        floor = self._short * 0.5  # extrapolating to an empty context must not reach zero
        curve: NDArray[np.float64] = np.maximum(base, floor)
        return curve * np.exp(self._log_shape + self._log_drift)

    def observe(self, rows: int, context: int, elapsed_ms: float) -> None:
        """Take in the measured time of a real pass; one outlier moves little."""
        if not 1 <= rows <= self.max_rows or elapsed_ms <= 0:
            return
        error = math.log(elapsed_ms) - math.log(self.pass_ms(rows, context))
        step = _RATE * min(max(error, -_LARGEST_ERROR), _LARGEST_ERROR)
        if rows == 1:
            self._log_drift += step
            return
        self._log_drift += _DRIFT_SHARE * step
        for neighbour, share in ((rows - 1, 0.5), (rows, 1.0), (rows + 1, 0.5)):
            if 2 <= neighbour <= self.max_rows:
                shape = self._log_shape[neighbour - 1] + share * (1 - _DRIFT_SHARE) * step
                self._log_shape[neighbour - 1] = min(max(shape, -_SHAPE_LIMIT), _SHAPE_LIMIT)


def _interpolate(costs: Mapping[int, float], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Straight lines between measured row counts; beyond the last, its cost per row."""
    known = sorted(costs)
    values = np.array([costs[row] for row in known])
    inside: NDArray[np.float64] = np.interp(rows, known, values)
    per_row = values[-1] / known[-1]
    return np.where(rows > known[-1], values[-1] + per_row * (rows - known[-1]), inside)
