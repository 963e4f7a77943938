"""Q4_K and Q6_K against the gguf package, which reads them by its own code."""

from __future__ import annotations

import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgespec.llama.tiny.kquants import quantize_q4_k, quantize_q6_k


def blocks_of_floats() -> st.SearchStrategy[NDArray[np.float32]]:
    """Two rows of 512 floats whose scales differ between and within blocks."""

    def build(seed: int, exponents: list[int], shift: float) -> NDArray[np.float32]:
        values = np.random.default_rng(seed).standard_normal((2, 512), dtype=np.float32)
        scales = np.repeat(np.float32(2.0) ** np.array(exponents, np.float32), 32)
        return (values + np.float32(shift)) * scales.reshape(2, 512)

    exponents = st.lists(st.integers(-6, 4), min_size=32, max_size=32)
    return st.builds(build, st.integers(0, 2**31), exponents, st.floats(-3, 3))


@given(blocks_of_floats())
def test_q4_k_is_read_back_within_its_steps(rows: NDArray[np.float32]) -> None:
    packed = quantize_q4_k(rows)
    assert packed.shape == (2, 2 * 144)
    error = np.abs(quants.dequantize(packed, GGMLQuantizationType.Q4_K) - rows)
    groups = rows.reshape(-1, 8, 32)
    lowest = np.maximum(-groups.min(axis=-1), 0)
    span = groups.max(axis=-1) + lowest
    # Half a step of 1/15 of the group's span; scale and minimum are off by 1/63 of the block's.
    allowed = span / 15 + (span.max(-1, keepdims=True) + lowest.max(-1, keepdims=True)) / 63
    assert (error.reshape(-1, 8, 32) <= allowed[..., None]).all()


@given(blocks_of_floats())
def test_q6_k_is_read_back_within_its_steps(rows: NDArray[np.float32]) -> None:
    packed = quantize_q6_k(rows)
    assert packed.shape == (2, 2 * 210)
    error = np.abs(quants.dequantize(packed, GGMLQuantizationType.Q6_K) - rows)
    largest = np.abs(rows.reshape(-1, 16, 16)).max(axis=-1)
    allowed = largest / 31 + largest.max(-1, keepdims=True) / 127
    assert (error.reshape(-1, 16, 16) <= allowed[..., None]).all()


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0])
def test_k_quants_keep_constant_blocks(value: float) -> None:
    rows = np.full((1, 256), value, dtype=np.float32)
    for quantize, name in ((quantize_q4_k, "Q4_K"), (quantize_q6_k, "Q6_K")):
        back = quants.dequantize(quantize(rows), GGMLQuantizationType[name])
        np.testing.assert_allclose(back, rows, rtol=2e-3)
