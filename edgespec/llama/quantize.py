"""Re-typing: a model's matrices in another quantization, by llama.cpp's own quantizer."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from edgespec.errors import ModelFileError, UsageError
from edgespec.llama import library
from edgespec.llama.gguf_file import GgufFile, replacing
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
"""What `retype` can make, by name."""


def retype(source: Path, destination: Path, type_name: str, num_threads: int = 0) -> None:
    """Write `source` with every matrix of its body as `type_name`; embeddings and head stay.

    Columns that the type's blocks do not divide get the nearest type that fits (a K type then
    becomes one of 32 columns). All metadata is kept. Takes about a second per 100 MB; the file
    appears whole or not at all. Raises UsageError for an unknown type, ModelFileError for a model
    that llama.cpp cannot quantize, StorageError (llama_model_quantize).
    """
    file_type = FILE_TYPES.get(type_name.lower())
    if file_type is None:
        raise UsageError(f"there is no type {type_name!r}", f"use one of {', '.join(FILE_TYPES)}")
    tensors = GgufFile(source).tensors
    params = api.llama_model_quantize_default_params()
    params.nthread = num_threads
    params.ftype = file_type
    params.allow_requantize = True
    params.pure = True
    if "token_embd.weight" in tensors:
        params.token_embedding_type = int(tensors["token_embd.weight"].tensor_type)
    params.quantize_output_tensor = False
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


def _is_whole(path: Path) -> bool:
    """Whether every tensor that the file's head promises is in it."""
    try:
        tensors = GgufFile(path).tensors.values()
    except ModelFileError:
        return False
    end = max((int(tensor.data_offset) + int(tensor.n_bytes) for tensor in tensors), default=0)
    return path.stat().st_size >= end
