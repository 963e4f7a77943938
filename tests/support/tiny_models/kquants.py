"""Q4_K and Q6_K, which the gguf package reads but does not write.

Plain rounding within the range of each group, without llama.cpp's search for the best scales: the
layout is what matters here. Layouts: ggml-common.h, `block_q4_K` and `block_q6_K`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLOCK = 256


def quantize_q4_k(rows: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Rows (n, m) of float32, m a multiple of 256, as (n, m / 256 * 144) bytes.

    A block holds 8 groups of 32 values, each value d * scale * q - dmin * minimum with q below 16
    and 6-bit scale and minimum.
    """
    groups = rows.reshape(-1, 8, BLOCK // 8)
    lowest = np.maximum(-groups.min(axis=-1), 0.0)
    span = (groups.max(axis=-1) + lowest) / 15.0
    d, scales = _shared_scale(span, 63)
    d_min, minima = _shared_scale(lowest, 63)
    step = (d.astype(np.float32) * scales)[..., None]
    offset = (d_min.astype(np.float32) * minima)[..., None]
    quants = np.rint(_divide(groups + offset, step)).clip(0, 15).astype(np.uint8)
    pairs = quants.reshape(-1, 4, 2, 32)
    packed = np.concatenate(
        [
            d.view(np.uint8),
            d_min.view(np.uint8),
            _pack_six_bits(scales.astype(np.uint8), minima.astype(np.uint8)),
            (pairs[:, :, 0] | (pairs[:, :, 1] << 4)).reshape(-1, 128),
        ],
        axis=-1,
    )
    return packed.reshape(len(rows), -1)


def quantize_q6_k(rows: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Rows (n, m) of float32, m a multiple of 256, as (n, m / 256 * 210) bytes.

    A block holds 16 groups of 16 values, each value d * scale * q with q from -32 to 31 and an
    8-bit scale; the low four and high two bits of q + 32 lie apart.
    """
    groups = rows.reshape(-1, 16, BLOCK // 16)
    d, scales = _shared_scale(np.abs(groups).max(axis=-1) / 31.0, 127)
    step = (d.astype(np.float32) * scales)[..., None]
    quants = (np.rint(_divide(groups, step)).clip(-32, 31) + 32).astype(np.uint8)
    halves = quants.reshape(-1, 2, 4, 32)
    low = halves & 0x0F
    high = halves >> 4
    packed = np.concatenate(
        [
            (low[:, :, :2] | (low[:, :, 2:] << 4)).reshape(-1, 128),
            (
                high[:, :, 0] | (high[:, :, 1] << 2) | (high[:, :, 2] << 4) | (high[:, :, 3] << 6)
            ).reshape(-1, 64),
            scales.astype(np.int8).view(np.uint8),
            d.view(np.uint8),
        ],
        axis=-1,
    )
    return packed.reshape(len(rows), -1)


def _shared_scale(
    sizes: NDArray[np.float32], largest: int
) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    """One float16 per block (n, 1) and whole numbers (n, groups) up to `largest`, as products."""
    shared = (sizes.max(axis=-1, keepdims=True) / largest).astype(np.float16)
    whole = np.rint(_divide(sizes, shared.astype(np.float32))).clip(0, largest)
    return shared, whole.astype(np.float32)


def _divide(values: NDArray[np.float32], divisors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Quotients, 0 where the divisor is 0."""
    shape = np.broadcast_shapes(values.shape, divisors.shape)
    zeros = np.zeros(shape, dtype=np.float32)
    return np.divide(values, divisors, out=zeros, where=divisors != 0)


def _pack_six_bits(scales: NDArray[np.uint8], minima: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Eight 6-bit scales and minima per block in 12 bytes (ggml-quants.c, `get_scale_min_k4`)."""
    first = scales[:, :4] | ((scales[:, 4:] >> 4) << 6)
    second = minima[:, :4] | ((minima[:, 4:] >> 4) << 6)
    third = (scales[:, 4:] & 0x0F) | ((minima[:, 4:] & 0x0F) << 4)
    return np.concatenate([first, second, third], axis=-1)
