"""What a decoder of a GGUF file computes, as far as it can be trained: sizes, positions, windows.

The families that are known differ in few things: biases and norms that are there or not, which
elements of a head are rotated together, the activation, and Gemma's windows. Whatever else a file
may ask for is refused, since a wrong pass would teach the wrong thing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgespec.errors import ModelFileError
from edgespec.gguf.file import GgufFile

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma3")
"""What can be trained, by `general.architecture`."""

MATRICES = (
    *("attn_q", "attn_k", "attn_v", "attn_output"),
    *("ffn_gate", "ffn_up", "ffn_down"),
)
"""Matrices of a layer: of each, `blk.N.NAME.weight` is (columns out, columns in)."""

_OPTIONAL = (
    *(f"{name}.bias" for name in MATRICES),
    *(f"{name}.weight" for name in ("attn_q_norm", "attn_k_norm")),
    *(f"{name}.weight" for name in ("post_attention_norm", "post_ffw_norm")),
)
_ALWAYS = tuple(f"{name}.weight" for name in (*MATRICES, "attn_norm", "ffn_norm"))
_ROPE_FACTORS = "rope_freqs.weight"
_SWA_ROPE_BASE = 10_000.0  # llama.cpp's default, src/llama-hparams.h
_SWA_PATTERN = 6


@dataclass(frozen=True, slots=True, eq=False)
class DecoderForm:
    """Sizes and constants of a decoder.

    `rope_bases` and `windows` have one entry for each layer; a window of 0 sees everything. Of a
    head the first `rope_size` elements are rotated: neighbours together if `interleaved`, else each
    with the one half of them further on. `rope_factors` divide the frequencies.
    """

    architecture: str
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    norm_epsilon: float
    activation: Literal["silu", "gelu"]
    interleaved: bool
    rope_size: int
    rope_bases: tuple[float, ...]
    windows: tuple[int, ...]
    rope_factors: NDArray[np.float32] | None = None

    @property
    def attention_scale(self) -> float:
        """What products of queries and keys are multiplied by."""
        return float(self.head_size**-0.5)


def read_form(file: GgufFile) -> DecoderForm:
    """The form of a whole or trimmed model; raises ModelFileError for one that cannot be trained.

    Source: llama.cpp, src/models/{llama,qwen2,qwen3,gemma3}.cpp.
    """
    kind = file.architecture
    if kind not in ARCHITECTURES:
        raise _untrainable(file, f"its architecture is {kind}")
    num_layers = int(file.value(f"{kind}.block_count", 0))
    num_heads = int(file.value(f"{kind}.attention.head_count", 0))
    if num_layers < 1 or num_heads < 1:
        raise _untrainable(file, "it does not tell its sizes")
    _check_asks_for_nothing_else(file)
    width = int(file.value(f"{kind}.embedding_length", 0))
    head_size = int(file.value(f"{kind}.attention.key_length", width // num_heads))
    is_gemma = kind == "gemma3"
    bases, windows = _layers(file, num_layers)
    factors = file.tensors.get(_ROPE_FACTORS)
    return DecoderForm(
        architecture=kind,
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=int(file.value(f"{kind}.attention.head_count_kv", num_heads)),
        head_size=head_size,
        norm_epsilon=float(file.value(f"{kind}.attention.layer_norm_rms_epsilon", 1e-6)),
        activation="gelu" if is_gemma else "silu",
        interleaved=kind == "llama",
        rope_size=int(file.value(f"{kind}.rope.dimension_count", head_size)),
        rope_bases=bases,
        windows=windows,
        rope_factors=None if factors is None else np.array(factors.data, np.float32),
    )


def _layers(file: GgufFile, num_layers: int) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Base of the rotation and window of each layer."""
    kind = file.architecture
    base = float(file.value(f"{kind}.rope.freq_base", 10_000.0))
    window = int(file.value(f"{kind}.attention.sliding_window", 0)) if kind == "gemma3" else 0
    if not window:
        return (base,) * num_layers, (0,) * num_layers
    pattern = file.value(f"{kind}.attention.sliding_window_pattern", _SWA_PATTERN)
    if isinstance(pattern, list):
        local = [bool(value) for value in pattern]
    else:
        local = [not pattern or layer % pattern < pattern - 1 for layer in range(num_layers)]
    near = float(file.value(f"{kind}.rope.freq_base_swa", _SWA_ROPE_BASE))
    return (
        tuple(near if is_local else base for is_local in local),
        tuple(window if is_local else 0 for is_local in local),
    )


def _check_asks_for_nothing_else(file: GgufFile) -> None:
    kind = file.architecture
    scaling = file.value(f"{kind}.rope.scaling.type", "none")
    if scaling != "none" and float(file.value(f"{kind}.rope.scaling.factor", 1.0)) != 1.0:
        raise _untrainable(file, f"its positions are scaled ({scaling})")
    if float(file.value(f"{kind}.final_logit_softcapping", 0.0)):
        raise _untrainable(file, "its logits are capped")
    if kind == "gemma3" and int(file.value(f"{kind}.block_count", 0)) == 62:
        raise _untrainable(file, "its attention is scaled in a way of its own")
    names = {name for name in file.tensors if name.startswith("blk.")}
    parts = {re.sub(r"^blk\.\d+\.", "", name) for name in names} - {_ROPE_FACTORS}
    unknown = sorted(parts - set(_ALWAYS) - set(_OPTIONAL))
    missing = sorted(set(_ALWAYS) - parts)
    if unknown or missing:
        raise _untrainable(file, f"its layers are of another form ({(unknown or missing)[0]})")


def _untrainable(file: GgufFile, reason: str) -> ModelFileError:
    known = ", ".join(ARCHITECTURES)
    return ModelFileError(
        f"{file.path.name} cannot be trained: {reason}", f"drafters of {known} can"
    )
