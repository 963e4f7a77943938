"""Tiny models of random blocks for the self-check: together they reach every fast matrix kernel.

A quantized matrix is a row of blocks, each with a scale and small numbers. Any numbers are valid,
so they are drawn at random, and the scale gives the matrix the deviation that it is to have. The
conditions of the fast kernels in llama.cpp are:

- AMX (ggml-cpu/amx/amx.cpp, `supports_op`; amx/mmq.cpp, `ggml_backend_amx_mul_mat`): Q4_0, Q4_1
  or Q8_0 with columns a multiple of 32, or Q4_K or Q6_K with columns a multiple of 256; rows a
  multiple of 32. The tile configuration, which some compilers get wrong, is loaded only for a pass
  of two or more tokens; a pass of one takes another kernel.
- Repacking (ggml-cpu/repack.cpp, `ggml_repack_get_optimal_repack_type`): rows a multiple of 8; Q4_0
  on every CPU that repacks at all, Q4_K from AVX2 or NEON on, Q8_0 and Q6_K on NEON.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter
from numpy.typing import NDArray

_NUM_VOCAB, _WIDTH, _FFN_WIDTH = 512, 256, 512
_NUM_LAYERS, _NUM_HEADS, _NUM_KV_HEADS = 2, 4, 2
_NUM_CONTEXT = 512
_LOGIT_DEVIATION = 4.0


@dataclass(frozen=True, slots=True)
class _Blocks:
    """A type's blocks: weights and bytes of each, the places of float16 scales with their factors.

    `deviation` is that of the weights of a random block whose scale is 1.
    """

    num_weights: int
    num_bytes: int
    scales: tuple[tuple[int, float], ...]
    deviation: float


# Layouts: ggml-common.h. The minimum of Q4_K is scaled so that weights are 0 on average.
_BLOCKS = {
    GGMLQuantizationType.Q4_0: _Blocks(32, 18, ((0, 1.0),), 4.6),
    GGMLQuantizationType.Q8_0: _Blocks(32, 34, ((0, 1.0),), 74.0),
    GGMLQuantizationType.Q4_K: _Blocks(256, 144, ((0, 1.0), (2, 7.5)), 258.0),
    GGMLQuantizationType.Q6_K: _Blocks(256, 210, ((208, 1.0),), 1370.0),
}

TYPES = (
    (GGMLQuantizationType.Q4_0, GGMLQuantizationType.Q4_0),
    (GGMLQuantizationType.Q8_0, GGMLQuantizationType.Q8_0),
    (GGMLQuantizationType.Q4_K, GGMLQuantizationType.Q6_K),
)
"""Of the body's matrices, and of the embeddings, which are the head as well; one pair a model."""


def write_check_models(folder: Path) -> list[Path]:
    """Write them into `folder`, a third of a megabyte each, always the same; raises OSError."""
    paths = []
    for number, (body, head) in enumerate(TYPES):
        path = folder / f"{number}.gguf"
        writer = GGUFWriter(path, "llama")
        _add_metadata(writer)
        rng = np.random.default_rng(number)
        for name, rows, columns in _matrices():
            kind, deviation = (body, 1.0) if name.startswith("blk.") else (head, _LOGIT_DEVIATION)
            data = _random_rows(rng, rows, columns, kind, deviation * columns**-0.5)
            writer.add_tensor(name, data, raw_dtype=kind)
        for name in ("output_norm", *_norms()):
            writer.add_tensor(f"{name}.weight", np.ones(_WIDTH, dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        paths.append(path)
    return paths


def _add_metadata(writer: GGUFWriter) -> None:
    """Sizes, and a vocabulary of nothing but numbers."""
    writer.add_context_length(_NUM_CONTEXT)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(_NUM_LAYERS)
    writer.add_feed_forward_length(_FFN_WIDTH)
    writer.add_head_count(_NUM_HEADS)
    writer.add_head_count_kv(_NUM_KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(_NUM_VOCAB)
    writer.add_tokenizer_model("none")


def _matrices() -> Iterator[tuple[str, int, int]]:
    """Names, rows and columns."""
    yield "token_embd.weight", _NUM_VOCAB, _WIDTH
    kv_width = _WIDTH * _NUM_KV_HEADS // _NUM_HEADS
    for layer in range(_NUM_LAYERS):
        block = f"blk.{layer}"
        yield f"{block}.attn_q.weight", _WIDTH, _WIDTH
        yield f"{block}.attn_k.weight", kv_width, _WIDTH
        yield f"{block}.attn_v.weight", kv_width, _WIDTH
        yield f"{block}.attn_output.weight", _WIDTH, _WIDTH
        yield f"{block}.ffn_gate.weight", _FFN_WIDTH, _WIDTH
        yield f"{block}.ffn_up.weight", _FFN_WIDTH, _WIDTH
        yield f"{block}.ffn_down.weight", _WIDTH, _FFN_WIDTH


def _norms() -> Iterator[str]:
    for layer in range(_NUM_LAYERS):
        yield from (f"blk.{layer}.attn_norm", f"blk.{layer}.ffn_norm")


def _random_rows(
    rng: np.random.Generator, rows: int, columns: int, kind: GGMLQuantizationType, deviation: float
) -> NDArray[np.uint8]:
    """Random weights of so large a deviation: (rows, bytes of a row)."""
    blocks = _BLOCKS[kind]
    num_blocks = rows * columns // blocks.num_weights
    data = rng.integers(0, 256, (num_blocks, blocks.num_bytes), dtype=np.uint8)
    data[data == 0x80] = 0  # -128, which no quantizer writes
    for place, factor in blocks.scales:
        scale = np.array([factor * deviation / blocks.deviation], dtype=np.float16)
        data[:, place : place + 2] = scale.view(np.uint8)
    return data.reshape(rows, -1)
