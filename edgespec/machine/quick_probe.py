"""Bit-for-bit invariance of a few row counts, proved in the half second before a first answer.

One KV setting is usually right (`probe.USUAL`), so only that is tried, and only as long as there is
time: two rows first, then one more at a time. A number of rows counts as proved once its pass gave
the bits of single rows both at a short context and at a long one, beyond 512 cells, where ggml's
kernels change. Whatever is proved goes on being proved: the next start, or idle time, tries more.

    short   t0 | t1            single rows from an empty cache: reference, and T(1)
            [t0 t1]            a pass of two rows from an empty cache: compared
    long    the short cells, copied until they fill 576; then the same
    3, 4..  further reference rows come from passes of as many rows as are proved already
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgespec.llama.context import Context, ContextOptions
from edgespec.llama.model import Model
from edgespec.machine.probe import NUM_LONG, KVSetting, append_copies, probe_tokens, timed_pass
from edgespec.pauses import NO_PAUSE, Pause

COUNTS = (2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16)
"""Row counts that are tried one after another."""

QUICK_CONTEXTS = 1, NUM_LONG
"""Cached tokens at the two context lengths, as T(r) tells them."""

_NUM_SEED, _NUM_BLOCK = 2, 32
"""Cells that are computed, and as many copies of them as are copied on together."""

_NUM_CONTEXT = 1024


@dataclass(frozen=True, slots=True)
class QuickResult:
    """The most rows that are proved, whether the next count differed, and times of passes.

    `short` and `long` hold milliseconds of each pass by number of rows, one at least, after next to
    nothing and after NUM_LONG cells.
    """

    max_rows: int
    differs: bool
    short: Mapping[int, Sequence[float]]
    long: Mapping[int, Sequence[float]]

    @property
    def short_ms(self) -> float:
        """The least that a single row took at the short context."""
        return min(self.short[1])

    @property
    def long_ms(self) -> float:
        """The least that a single row took at the long context."""
        return min(self.long[1])


def quick_probe(
    model: Model,
    setting: KVSetting,
    num_threads: int,
    seconds: float,
    proved: int = 1,
    clock: Callable[[], float] = time.perf_counter,
    pause: Pause = NO_PAUSE,
) -> QuickResult:
    """Prove more than `proved` rows until a count differs, all are proved or `seconds` are over.

    Two single rows are always computed. Raises NativeLibraryError if llama.cpp refuses
    the setting, and what `pause` raises.
    """
    options = ContextOptions(
        num_context=_NUM_CONTEXT,
        num_threads=num_threads,
        num_batch=COUNTS[-1],
        num_sequences=2,
        type_k=setting.type_k,
        type_v=setting.type_v,
    )
    started = clock()
    tokens = probe_tokens(model.vocab.num_tokens, COUNTS[-1])
    with Context(model, options) as context, pause.aborting(context):
        short = _Place(context, tokens)
        short.refer(_NUM_SEED, 1)
        if not model.can_roll_back or clock() - started > seconds:
            return QuickResult(proved, False, short.times, short.times)
        with Context(model, options, beside=context) as copies:
            _fill(copies, context.save_state())
            long = _Place(copies, tokens)
            long.refer(1, 1)
            differs = False
            for rows in (count for count in COUNTS if count > proved):
                left = seconds - (clock() - started)
                if differs or short.expected_s(rows, proved) + long.expected_s(rows, proved) > left:
                    break
                differs = not (short.agrees(rows, proved) and long.agrees(rows, proved))
                proved = proved if differs else rows
            return QuickResult(proved, differs, short.times, long.times)


def _fill(context: Context, seed: bytes) -> None:
    """Fill a cache with copies of the cells of `seed`, first a few and then copies of those."""
    append_copies(context, seed, _NUM_BLOCK // _NUM_SEED)
    append_copies(context, context.save_state(), NUM_LONG // _NUM_BLOCK - 1)


class _Place:
    """The end of a context, where passes are compared with single rows; times in milliseconds."""

    def __init__(self, context: Context, tokens: Sequence[int]) -> None:
        self._context = context
        self._tokens = tokens
        self._start = context.last_position() + 1
        self._references: list[NDArray[np.float32]] = []
        self._pass_ms = 0.0
        self.times: dict[int, list[float]] = {}

    def expected_s(self, rows: int, proved: int) -> float:
        """Seconds that `agrees` is expected to take, by the last pass."""
        num_lacking = max(rows - len(self._references), 0)
        return (1 + -(-num_lacking // proved)) * self._pass_ms / 1e3

    def agrees(self, rows: int, proved: int) -> bool:
        """Whether a pass of `rows` rows gives what as many single rows do, bit by bit."""
        self.refer(rows, proved)
        together = self._pass(0, rows)
        return all(map(np.array_equal, self._references[:rows], together))

    def refer(self, count: int, proved: int) -> None:
        """Have the logits of the first `count` tokens, by passes of `proved` rows.

        Those give what single rows do. The cache holds as many tokens as there are references, or
        more.
        """
        while len(self._references) < count:
            start = len(self._references)
            self._references += self._pass(start, min(proved, count - start))

    def _pass(self, start: int, rows: int) -> list[NDArray[np.float32]]:
        if self._context.last_position() >= self._start + start:
            self._context.remove(self._start + start)
        logits, self._pass_ms = timed_pass(self._context, self._tokens[start : start + rows])
        self.times.setdefault(rows, []).append(self._pass_ms)
        return logits
