"""What a pass over r rows takes against one row, before anything was measured: T(r) / T(1).

Measured with models of 1.5 to 12 billion weights in 4 bits, at a short context; each figure is the
geometric mean of the machines of its kind (bench/LOG.md, and for GPUs what llama.cpp's pull
requests 10581 and 15802 tell). The scale comes from the first passes on this machine, and real
passes bend the curve from then on (`edgespec.planning.cost`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Literal

from edgespec.planning.cost import CostTable

Kernels = Literal["own", "stock", "gpu"]
"""Who multiplies: EdgeSpec's kernel for a few rows (AVX-512 VNNI), ggml's on a CPU, or a GPU."""

SHAPES: Mapping[Kernels, Mapping[int, float]] = MappingProxyType(
    {
        "own": {1: 1.0, 2: 1.08, 3: 1.18, 4: 1.19, 6: 1.38, 8: 1.54, 12: 2.14, 16: 2.78},
        "stock": {1: 1.0, 2: 1.64, 3: 1.72, 4: 1.79, 6: 2.09, 8: 2.36, 12: 2.53, 16: 2.83},
        "gpu": {1: 1.0, 2: 1.15, 3: 1.18, 4: 1.3, 6: 1.75, 8: 2.15, 12: 3.0, 16: 3.9},
    }
)


def kernels_of(features: Collection[str], *, is_own_build: bool, has_gpu: bool) -> Kernels:
    """Whose kernels a build of the library uses, by its features and by who built it.

    >>> kernels_of(("AVX2", "AVX512_VNNI"), is_own_build=True, has_gpu=False)
    'own'
    """
    if has_gpu:
        return "gpu"
    return "own" if is_own_build and "AVX512_VNNI" in features else "stock"


def scaled_table(
    kernels: Kernels, contexts: tuple[int, int], single_ms: tuple[float, float]
) -> CostTable:
    """T(r) from what one row takes after two numbers of cached tokens; times in milliseconds.

    What the longer context adds is attention, which every row has of its own only in part: it is
    taken to add the same to all.
    """
    short_ms, long_ms = single_ms
    added = max(long_ms - short_ms, 0.0)
    by_rows = {rows: factor * short_ms for rows, factor in SHAPES[kernels].items()}
    return CostTable(*contexts, by_rows, {rows: ms + added for rows, ms in by_rows.items()})
