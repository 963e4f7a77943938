"""Batch invariance and T(r) of one model on this machine, from the same passes.

A row of a pass over r rows must have the logits, bit for bit, of the same token decoded alone: only
then is sampling with speculation the same as without. Whether it does depends on kernels, KV types
and context length, so it is measured: two rows first, then one more at a time. A number of rows
counts as proved once its pass gave the bits of single rows both at a short context and at a long
one, beyond 512 cells, where ggml's kernels change.

    short   t0 | t1            single rows from an empty cache: reference, and T(1)
            [t0 t1]            a pass of two rows from an empty cache: compared
    long    the short cells, copied until they fill 576; then the same
    3, 4..  further reference rows come from passes of as many rows as are proved already

The long context costs no prefill: attention over repeated cells is as costly, and as sensitive to
rounding, as over any others. Before an answer there is half a second, for one setting (`USUAL` is
usually right); whatever is proved is used, and the next start, or idle time, tries more.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgespec.errors import NativeLibraryError
from edgespec.llama.context import Context, ContextOptions, KVType
from edgespec.llama.model import Model
from edgespec.pauses import NO_PAUSE, Pause

ROWS = (2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16)
"""Row counts that are compared and timed, one after another, beside one."""

NUM_LONG = 576
CONTEXTS = 1, NUM_LONG
"""Cached tokens at the two context lengths, as T(r) tells them."""

_NUM_BLOCK = 32
"""Cells that are copied on together."""

_FEW_SINGLES, _MANY_SINGLES = 2, 8
"""Single rows that are timed in haste, and with time."""

_FEW_ROWS = 4
"""With time, up to so many rows a pass is timed twice: the first builds a graph."""

_NUM_CONTEXT = 1024


@dataclass(frozen=True, slots=True)
class KVSetting:
    """Types of the KV cache; flash attention is always on."""

    type_k: KVType
    type_v: KVType

    @property
    def name(self) -> str:
        """For people: "f16" or "bf16/f16" (keys/values)."""
        return self.type_k if self.type_k == self.type_v else f"{self.type_k}/{self.type_v}"


# From cheap to dear. The first is llama.cpp's default. The mixed one avoids the two kernels of ggml
# that depend on the number of rows (flash attention over equal F16 or F32 types) at the least cost.
CANDIDATES = (
    KVSetting("f16", "f16"),
    KVSetting("bf16", "f16"),
    KVSetting("f16", "bf16"),
    KVSetting("bf16", "bf16"),
    KVSetting("q8_0", "q8_0"),
)


USUAL = CANDIDATES[1]
"""What nearly every model ends with on a CPU; attention on GPUs wants keys and values alike."""


@dataclass(frozen=True, slots=True)
class SettingResult:
    """What one setting gave: the most rows proved, the largest difference of logits beyond them.

    `short` and `long` hold milliseconds of each pass by number of rows, one at least, at the two
    context lengths.
    """

    setting: KVSetting
    max_rows: int
    margin: float
    short: Mapping[int, Sequence[float]]
    long: Mapping[int, Sequence[float]]

    @property
    def short_ms(self) -> dict[int, float]:
        """The least times at the short context: what a busy machine adds is not the model's."""
        return {rows: min(times) for rows, times in self.short.items()}

    @property
    def long_ms(self) -> dict[int, float]:
        """The least times at the long context."""
        return {rows: min(times) for rows, times in self.long.items()}

    @property
    def spread(self) -> float:
        """Median of the single-row times over the least of them: near 1 on a quiet machine."""
        return max(statistics.median(each[1]) / min(each[1]) for each in (self.short, self.long))


def probe_model(
    model: Model,
    num_threads: int,
    report: Callable[[str], None] = lambda _line: None,
    pinned: KVSetting | None = None,
) -> tuple[SettingResult, ...]:
    """Probe settings from cheap to dear until one is invariant to all rows; the chosen one is last.

    Where none is, the one with the most invariant rows is last; settings that llama.cpp refuses are
    skipped. One that is `pinned`, because answers were given with it, is the only one if it is
    invariant at all: another would give other bytes. Raises NativeLibraryError when llama.cpp
    refuses all.
    """
    results: list[SettingResult] = []
    others = [setting for setting in CANDIDATES if setting != pinned]
    settings = others if pinned is None else [pinned, *others]
    longest_s, left = 0.0, "once"
    for place, setting in enumerate(settings):
        if longest_s:
            left = f"once, at most {longest_s * (len(settings) - place):.0f} s left"
        report(f"measuring with {setting.name} KV cache ({left})")
        started = time.perf_counter()
        try:
            result = probe_setting(model, setting, num_threads)
        except NativeLibraryError:
            continue
        longest_s = max(longest_s, time.perf_counter() - started)
        results.append(result)
        if result.max_rows == ROWS[-1] or (setting == pinned and result.max_rows > 1):
            break
    if not results:
        raise NativeLibraryError(f"no KV cache type works for {model.path.name}")
    # max() takes the first of equals, and the candidates ascend in cost.
    best = max(results, key=lambda result: result.max_rows)
    worse = tuple(result for result in results if result is not best)
    if best.max_rows == 1:  # drafts will be verified all the same, so T(r) is needed for all rows
        best = probe_setting(model, best.setting, num_threads, to_the_end=True)
    return (*worse, best)


def probe_setting(
    model: Model,
    setting: KVSetting,
    num_threads: int,
    seconds: float = math.inf,
    proved: int = 1,
    *,
    to_the_end: bool = False,
    clock: Callable[[], float] = time.perf_counter,
    pause: Pause = NO_PAUSE,
) -> SettingResult:
    """Prove more than `proved` rows until a count differs, all are proved or `seconds` are over.

    Two single rows are always computed. With all the time in the world times are taken more often,
    and `to_the_end` goes on behind a difference. A model that cannot roll back never verifies
    a draft: of it there is T(1). Raises NativeLibraryError if llama.cpp refuses the setting, and
    what `pause` raises.
    """
    options = ContextOptions(
        num_context=_NUM_CONTEXT,
        num_threads=num_threads,
        num_batch=ROWS[-1],
        num_sequences=2,
        type_k=setting.type_k,
        type_v=setting.type_v,
    )
    started, has_time = clock(), seconds == math.inf
    tokens = probe_tokens(model.vocab.num_tokens)
    with Context(model, options) as context, pause.aborting(context):
        short = _Place(context, tokens, has_time)
        num_singles = _MANY_SINGLES if has_time else _FEW_SINGLES
        short.refer(num_singles, 1)
        if not model.can_roll_back or clock() - started > seconds:
            return SettingResult(setting, proved, 0.0, short.times, short.times)
        with Context(model, options, beside=context) as copies:
            append_copies(copies, context.save_state(), _NUM_BLOCK // num_singles)
            append_copies(copies, copies.save_state(), NUM_LONG // _NUM_BLOCK - 1)
            long = _Place(copies, tokens, has_time)
            long.refer(num_singles if has_time else 1, 1)
            margin = 0.0
            for rows in (count for count in ROWS if count > proved):
                left = seconds - (clock() - started)
                if (margin and not to_the_end) or left < sum(
                    place.expected_s(rows, proved) for place in (short, long)
                ):
                    break
                margin = max(margin, *(place.difference(rows, proved) for place in (short, long)))
                proved = proved if margin else rows
            return SettingResult(setting, proved, margin, short.times, long.times)


class _Place:
    """The end of a context, where passes are compared with single rows; times in milliseconds."""

    def __init__(self, context: Context, tokens: Sequence[int], has_time: bool) -> None:
        self._context = context
        self._tokens = tokens
        self._has_time = has_time
        self._start = context.last_position() + 1
        self._references: list[NDArray[np.float32]] = []
        self._pass_ms = 0.0
        self.times: dict[int, list[float]] = {}

    def expected_s(self, rows: int, proved: int) -> float:
        """Seconds that `difference` is expected to take, by the last pass."""
        num_lacking = max(rows - len(self._references), 0)
        return (1 + -(-num_lacking // proved)) * self._pass_ms / 1e3

    def difference(self, rows: int, proved: int) -> float:
        """By how much the logits of a pass of `rows` rows differ from those of single rows."""
        self.refer(rows, proved)
        for _ in range(2 if self._has_time and rows <= _FEW_ROWS else 1):
            together = self._pass(0, rows)
        pairs = zip(self._references, together, strict=False)
        return max(
            0.0
            if np.array_equal(one, other)
            else float(np.nan_to_num(np.abs(one - other), nan=np.inf).max())
            for one, other in pairs
        )

    def refer(self, count: int, proved: int) -> None:
        """Have the logits of the first `count` tokens, by passes of `proved` rows.

        Those give what single rows do. The cache holds as many tokens as there are references, or
        more.
        """
        while len(self._references) < count:
            start = len(self._references)
            self._references += self._pass(start, min(proved, count - start))

    def _pass(self, start: int, rows: int) -> list[NDArray[np.float32]]:
        """Decode `rows` tokens from `start` on: each row's logits."""
        context, position = self._context, self._start + start
        if context.last_position() >= position:
            context.remove(position)
        started = time.perf_counter()
        context.decode(self._tokens[start : start + rows], position, num_outputs=rows)
        context.synchronize()
        self._pass_ms = (time.perf_counter() - started) * 1e3
        self.times.setdefault(rows, []).append(self._pass_ms)
        return [context.logits(row).copy() for row in range(rows)]


def append_copies(context: Context, state: bytes, num_copies: int) -> None:
    """Give sequence 0 the cells of `state` so many times more, at the positions that they have."""
    for _ in range(num_copies):
        context.load_state(state, sequence=1)
        context.copy_sequence(1, 0)
        context.remove(0, sequence=1)


def probe_tokens(num_vocab: int, count: int = ROWS[-1]) -> list[int]:
    """Token ids spread over the vocabulary, the same on every run."""
    rng = np.random.default_rng(0)
    return [int(token) for token in rng.integers(0, num_vocab, count)]
