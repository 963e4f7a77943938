"""Re-typing: a model's matrices in another quantization, by llama.cpp's own quantizer."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.gguf_reader import ReaderTensor
from llama_cpp import _ggml as _binding
from numpy.typing import NDArray

from edgespec.errors import ModelFileError, UsageError
from edgespec.gguf.file import GgufFile, replacing
from edgespec.llama import library
from edgespec.llama.library import api

# Of each type, the llama_ftype whose default tensor type it is (llama.h).
FILE_TYPES: Mapping[str, int] = MappingProxyType(
    {
        "f16": 1,
        "q4_0": 2,
        "q4_1": 3,
        "q8_0": 7,
        "q5_0": 8,
        "q5_1": 9,
        "q4_k": 14,
        "q5_k": 16,
        "q6_k": 18,
        "iq4_nl": 25,
        "bf16": 32,
    }
)
"""Plain types that `retype` can make, by name."""

Q4_M = "q4_m"
"""Q4_0, but Q8_0 for what loses most by it: the values, and the feed-forward block's way down."""

TYPE_NAMES = (*FILE_TYPES, Q4_M)
"""What `retype` can make."""

_Q4_M_IN_Q8_0 = (rb"attn_v\.", rb"attn_qkv\.", rb"ffn_down\.")
_GGML_TYPE_Q8_0 = 8
_SEARCHED = ("q4_0", Q4_M)
"""Types whose scales llama.cpp searches block by block, instead of taking the largest value's, if
it is given weights: equal ones serve as well as those of the norms before a matrix."""


def retype(source: Path, destination: Path, type_name: str, num_threads: int = 0) -> None:
    """Write `source` with every matrix of its body as `type_name`; embeddings and head stay.

    Columns that the type's blocks do not divide get the nearest type that fits (a K type then
    becomes one of 32 columns). All metadata is kept. Takes up to three seconds per 100 MB; the file
    appears whole or not at all. Raises UsageError for an unknown type, ModelFileError for a model
    that llama.cpp cannot quantize, StorageError (llama_model_quantize).
    """
    type_name = type_name.lower()
    if type_name not in TYPE_NAMES:
        raise UsageError(f"there is no type {type_name!r}", f"use one of {', '.join(TYPE_NAMES)}")
    tensors = GgufFile(source).tensors
    params = api.llama_model_quantize_default_params()
    params.nthread = num_threads
    params.ftype = FILE_TYPES["q4_0" if type_name == Q4_M else type_name]
    params.allow_requantize = True
    params.pure = True
    if "token_embd.weight" in tensors:
        params.token_embedding_type = int(tensors["token_embd.weight"].tensor_type)
    params.quantize_output_tensor = False
    overrides = _overrides(_Q4_M_IN_Q8_0 if type_name == Q4_M else ())
    params.tt_overrides = overrides
    weights = _equal_weights(tensors if type_name in _SEARCHED else {})
    if weights is not None:
        params.imatrix = weights.entries
    most_bytes = sum(2 * tensor.n_elements for tensor in tensors.values())
    with replacing(destination, most_bytes) as scratch:
        library.forget_errors()
        status = api.llama_model_quantize(os.fsencode(source), os.fsencode(scratch), params)
        if status != 0:
            reason = library.last_error().rpartition("failed to quantize: ")[2]
            if "iostream" in reason:  # all that C++ tells of a disk that refuses
                raise OSError(errno.ENOSPC, reason)
            reason = reason or "no reason given"
            raise ModelFileError(
                f"llama.cpp cannot make {type_name} of {source.name}: {reason}",
                "use it as it is (--retype none)",
            )
        if not _is_whole(scratch):  # some C++ libraries do not tell of a disk that refuses
            raise OSError(errno.ENOSPC, "the file was cut off")


def quantized_rows(values: NDArray[np.float32], kind: GGMLQuantizationType) -> NDArray[np.uint8]:
    """Rows of a matrix in one of ggml's types: (num_rows, bytes of a row) (ggml_quantize_chunk).

    Raises UsageError for a type that ggml cannot make without knowing what matters.
    """
    rows, columns = values.shape
    if kind == GGMLQuantizationType.F32:
        return np.ascontiguousarray(values, np.float32).view(np.uint8)
    block, num_bytes = GGML_QUANT_SIZES[kind]
    ggml = _ggml()
    if columns % block or ggml.ggml_quantize_requires_imatrix(int(kind)):
        raise UsageError(f"a matrix of {columns} columns cannot be made {kind.name}")
    source = np.ascontiguousarray(values, np.float32)
    made = np.empty((rows, columns // block * num_bytes), np.uint8)
    ggml.ggml_quantize_chunk(
        int(kind), source.ctypes.data, made.ctypes.data, 0, rows, columns, None
    )
    return made


@lru_cache(maxsize=1)
def _ggml() -> ctypes.CDLL:
    """The library below llama.cpp: what it exports and nothing binds."""
    loaded: ctypes.CDLL = _binding.libggml
    loaded.ggml_quantize_chunk.argtypes = (
        *(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p),
        *(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p),
    )
    loaded.ggml_quantize_chunk.restype = ctypes.c_size_t
    loaded.ggml_quantize_requires_imatrix.restype = ctypes.c_bool
    return loaded


def _is_whole(path: Path) -> bool:
    """Whether every tensor that the file's head promises is in it."""
    try:
        tensors = GgufFile(path).tensors.values()
    except ModelFileError:
        return False
    end = max((int(tensor.data_offset) + int(tensor.n_bytes) for tensor in tensors), default=0)
    return path.stat().st_size >= end


def _overrides(patterns: Sequence[bytes]) -> ctypes.Array[api.llama_model_tensor_override]:
    """Tensors whose names match `patterns` become Q8_0; an entry without pattern ends the list."""
    entries: ctypes.Array[api.llama_model_tensor_override]
    entries = (api.llama_model_tensor_override * (len(patterns) + 1))()
    for entry, pattern in zip(entries, patterns, strict=False):
        entry.pattern, entry.type = pattern, _GGML_TYPE_Q8_0
    return entries


class _Weights:
    """Importance of each column of each matrix, and the memory that llama.cpp reads it from."""

    def __init__(self, columns: Mapping[str, int]) -> None:
        """All columns are equally important."""
        self._ones = np.ones(max(columns.values()), dtype=np.float32)
        self.entries = (api.llama_model_imatrix_data * (len(columns) + 1))()
        data = self._ones.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        for entry, (name, count) in zip(self.entries, columns.items(), strict=False):
            entry.name, entry.data, entry.size = name.encode(), data, count


def _equal_weights(tensors: Mapping[str, ReaderTensor]) -> _Weights | None:
    """Equal weights for every matrix of the body, None if there is none."""
    columns = {
        name: int(tensor.shape[0])
        for name, tensor in tensors.items()
        if name.startswith("blk.") and len(tensor.shape) == 2
    }
    return _Weights(columns) if columns else None
