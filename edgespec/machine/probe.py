"""Batch invariance and T(r) of one model on this machine, from the same passes.

A row of a pass over r rows must have the logits, bit for bit, of the same token decoded alone: only
then is sampling with speculation the same as without. Whether it does depends on kernels, KV types
and context length, so it is measured. Each setting is probed at a long context first (beyond 512
cells, where ggml's kernels change) and then at a short one: single rows give the reference logits
and T(1), passes of r rows are compared with them and give T(r).

The long context costs no prefill: the cells of a short one are saved and loaded several times into
the same sequence. Attention over repeated cells is as costly, and as sensitive to rounding, as over
any others.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgespec.errors import NativeLibraryError
from edgespec.llama.context import Context, ContextOptions, KVType
from edgespec.llama.model import Model

ROWS = (2, 3, 4, 6, 8, 16)
"""Row counts that are compared and timed, beside one, at the long context."""

SHORT_ROWS = (2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16)
"""The same at the short context: more of them, because a pass over one row more may cost a step
more, or even less; what a longer context adds has no such steps."""

NUM_SINGLES = 8
"""Most rows that are decoded one at a time for reference."""

NUM_SHORT = 64
NUM_COPIES = 8
NUM_LONG = NUM_SHORT * (1 + NUM_COPIES)
"""Cached tokens at the two context lengths."""

FEW_ROWS = 4
"""Up to so many rows a pass is timed twice: the first builds a graph, much of a short pass."""

_MAX_ROWS = ROWS[-1]
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
    """What one setting gave: invariance, largest logit difference beyond it, times in ms by rows.

    `max_rows` is the most rows for which every tested pass up to it was bit-identical. `spread` is
    the median of the single-row times over the least of them: near 1 on a quiet machine.
    """

    setting: KVSetting
    max_rows: int
    margin: float
    short_ms: dict[int, float]
    long_ms: dict[int, float]
    spread: float = 1.0


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
        if result.max_rows == _MAX_ROWS or (setting == pinned and result.max_rows > 1):
            break
    if not results:
        raise NativeLibraryError(f"no KV cache type works for {model.path.name}")
    # max() takes the first of equals, and the candidates ascend in cost.
    best = max(results, key=lambda result: result.max_rows)
    worse = tuple(result for result in results if result is not best)
    if best.max_rows == 1:  # drafts will be verified all the same, so T(r) is needed for all rows
        best = probe_setting(model, best.setting, num_threads, stop_at_difference=False)
    return (*worse, best)


def probe_setting(
    model: Model,
    setting: KVSetting,
    num_threads: int,
    *,
    stop_at_difference: bool = True,
) -> SettingResult:
    """Probe one setting at both context lengths; the short one only for the rows that passed."""
    options = ContextOptions(
        num_context=_NUM_CONTEXT,
        num_threads=num_threads,
        num_batch=NUM_SHORT,
        num_sequences=2,
        type_k=setting.type_k,
        type_v=setting.type_v,
    )
    with Context(model, options) as context:
        tokens = probe_tokens(model.vocab.num_tokens, NUM_SHORT + _MAX_ROWS)
        context.decode(tokens[:NUM_SHORT], 0)
        context.synchronize()
        state = context.save_state()
        following = tokens[NUM_SHORT:]
        append_copies(context, state, NUM_COPIES)
        long = _compare(context, following, ROWS, stop_at_difference)
        context.clear()
        context.load_state(state)
        if long.max_rows == 1 and stop_at_difference:  # of no use, so T(1) will do
            counts: Sequence[int] = ()
        else:
            limit = long.max_rows if stop_at_difference else ROWS[-1]
            counts = [rows for rows in SHORT_ROWS if rows <= limit]
        short = _compare(context, following, counts, stop_at_difference)
    agreed = not counts or short.max_rows == counts[-1]
    return SettingResult(
        setting,
        long.max_rows if agreed else min(long.max_rows, short.max_rows),
        max(long.margin, short.margin),
        short.times,
        long.times,
        max(long.spread, short.spread),
    )


@dataclass(frozen=True, slots=True)
class _Comparison:
    """Most rows that agreed with single rows, largest difference seen, milliseconds by rows."""

    max_rows: int
    margin: float
    times: dict[int, float]
    spread: float


def _compare(
    context: Context, tokens: Sequence[int], counts: Sequence[int], stop_at_difference: bool
) -> _Comparison:
    """Time one row and each of `counts` rows, up to the first count that differs from one row."""
    single_ms: list[float] = []
    reference = _single_rows(context, tokens[:2], single_ms)
    times: dict[int, float] = {}
    max_rows, margin = 1, 0.0
    for rows in counts:
        if rows > len(reference):
            _extend_reference(context, tokens, reference, single_ms, max_rows)
        passes = []
        for _ in range(2 if rows <= FEW_ROWS else 1):
            context.remove(NUM_SHORT)
            passes.append(timed_pass(context, tokens[:rows]))
        logits, times[rows] = min(passes, key=lambda timed: timed[1])
        differences = (float(np.abs(a - b).max()) for a, b in zip(reference, logits, strict=False))
        margin = max(margin, *differences)
        if margin == 0:
            max_rows = rows
        elif stop_at_difference:
            break
    context.remove(NUM_SHORT)
    # The least is what the work takes; whatever a busy machine adds is no property of the model.
    times[1] = min(single_ms)
    return _Comparison(max_rows, margin, times, statistics.median(single_ms) / times[1])


def _single_rows(
    context: Context, tokens: Sequence[int], single_ms: list[float]
) -> list[NDArray[np.float32]]:
    """Logits of `tokens` decoded one at a time; their times are appended to `single_ms`."""
    passes = [timed_pass(context, [token]) for token in tokens]
    single_ms.extend(elapsed for _, elapsed in passes)
    return [row for rows, _ in passes for row in rows]


def _extend_reference(
    context: Context,
    tokens: Sequence[int],
    reference: list[NDArray[np.float32]],
    single_ms: list[float],
    max_rows: int,
) -> None:
    """Add the logits of all further tokens; the cache holds those of `reference` on entry.

    The first NUM_SINGLES are decoded alone. Passes of `max_rows` rows, already proven equal to
    single rows, give the rest faster.
    """
    reference.extend(_single_rows(context, tokens[len(reference) : NUM_SINGLES], single_ms))
    while len(reference) < len(tokens):
        start = len(reference)
        logits, _ = timed_pass(context, tokens[start : start + max_rows])
        reference.extend(logits)


def probe_single_rows(model: Model, num_threads: int) -> SettingResult:
    """T(1) of a model that cannot roll back, and so never verifies a draft."""
    options = ContextOptions(num_context=_NUM_CONTEXT, num_threads=num_threads, num_batch=NUM_SHORT)
    single_ms: list[float] = []
    with Context(model, options) as context:
        tokens = probe_tokens(model.vocab.num_tokens, NUM_SHORT + NUM_SINGLES)
        context.decode(tokens[:NUM_SHORT], 0)
        _single_rows(context, tokens[NUM_SHORT:], single_ms)
    elapsed = min(single_ms)
    spread = statistics.median(single_ms) / elapsed
    return SettingResult(CANDIDATES[0], 1, 0.0, {1: elapsed}, {1: elapsed}, spread)


def append_copies(context: Context, state: bytes, num_copies: int) -> None:
    """Give sequence 0 the cells of `state` so many times more, at the positions that they have."""
    for _ in range(num_copies):
        context.load_state(state, sequence=1)
        context.copy_sequence(1, 0)
        context.remove(0, sequence=1)


def timed_pass(context: Context, tokens: Sequence[int]) -> tuple[list[NDArray[np.float32]], float]:
    """Decode `tokens` at the end of sequence 0: each row's logits, and milliseconds."""
    position = context.last_position() + 1
    started = time.perf_counter()
    context.decode(tokens, position, num_outputs=len(tokens))
    context.synchronize()
    elapsed = (time.perf_counter() - started) * 1e3
    return [context.logits(row).copy() for row in range(len(tokens))], elapsed


def probe_tokens(num_vocab: int, count: int) -> list[int]:
    """Token ids spread over the vocabulary, the same on every run."""
    rng = np.random.default_rng(0)
    return [int(token) for token in rng.integers(0, num_vocab, count)]
