"""A LoRA added to a drafter's matrices, in a copy of the file that runs.

What is added is small against the steps of four-bit types, so it is not added to the numbers of the
file that runs, which lie on those steps and would mostly stay there, but to the whole drafter's,
from which that file was made; the sum is then rounded to the type of the file that runs.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from gguf import quants
from gguf.gguf_reader import ReaderTensor

from edgespec.errors import ModelFileError
from edgespec.gguf.file import GgufFile, replacing
from edgespec.gguf.quantize import quantized_rows
from edgespec.learning.distillation.lora import Lora


def merge(
    lora: Lora,
    whole: Path,
    running: Path,
    destination: Path,
    between: Callable[[], None] = lambda: None,
) -> None:
    """Write `running`, a form of `whole`, with the changes added; all metadata stays.

    The file appears whole or not at all; `between` is called before each matrix, and may raise.
    Raises ModelFileError if the changes are not of this drafter or a type cannot be made,
    StorageError.
    """
    parent, file = GgufFile(whole), GgufFile(running)
    for name, change in lora.changes.items():
        shape = (len(change.up), change.down.shape[1])
        if any(_shape(source, name) != shape for source in (parent, file)):
            raise ModelFileError(
                f"{running.name} has no {name} of the form that was trained", "train anew"
            )
    with replacing(destination, running.stat().st_size) as scratch:
        shutil.copyfile(running, scratch)
        with scratch.open("rb+") as copy:
            for name in lora.changes:
                between()
                tensor = file.tensors[name]
                source = parent.tensors[name]
                values = quants.dequantize(source.data, source.tensor_type)
                rows = quantized_rows(
                    np.asarray(values, np.float32) + lora.delta(name), tensor.tensor_type
                )
                copy.seek(int(tensor.data_offset))
                copy.write(rows.tobytes())


def _shape(file: GgufFile, name: str) -> tuple[int, ...] | None:
    tensor: ReaderTensor | None = file.tensors.get(name)
    return None if tensor is None else tuple(int(size) for size in reversed(tensor.shape))
