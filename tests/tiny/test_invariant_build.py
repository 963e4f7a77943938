"""The library that `make setup` builds is batch-invariant where its kernels were edited."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_models import TinySpec, write_tiny_model

from edgespec.llama.context import Context, ContextOptions
from edgespec.llama.model import Model, ModelOptions
from edgespec.machine.identity import this_machine
from edgespec.machine.probe import ROWS, probe_model

IS_X86 = platform.machine() in ("x86_64", "AMD64")
EDITED = ("Q4_K", "Q6_K", "Q4_0", "Q8_0")


@pytest.mark.parametrize("quantization", EDITED)
def test_rows_agree_for_every_number_of_rows(tmp_path: Path, quantization: str) -> None:
    spec = TinySpec(quantization=quantization)  # type: ignore[arg-type]
    with Model(write_tiny_model(tmp_path / "tiny.gguf", spec)) as model:
        chosen = probe_model(model, this_machine().num_threads)[-1]
    least = ROWS[-1] if IS_X86 else 1  # elsewhere the kernels are as they come
    assert chosen.max_rows >= least, chosen


@pytest.mark.parametrize("quantization", EDITED)
def test_repacked_kernels_compute_what_plain_ones_do(tmp_path: Path, quantization: str) -> None:
    """Against ggml's own dot products over the weights as they are in the file."""
    path = write_tiny_model(tmp_path / "tiny.gguf", TinySpec(quantization=quantization))  # type: ignore[arg-type]
    tokens = list(range(40, 75))
    repacked, plain = (_all_logits(path, tokens, use_extra_buffers=use) for use in (True, False))
    scale = float(np.abs(plain).max())
    assert scale > 0
    assert float(np.abs(repacked - plain).max()) < 0.02 * scale


def _all_logits(path: Path, tokens: list[int], *, use_extra_buffers: bool) -> NDArray[np.float32]:
    """Logits after each of `tokens`, in passes of 1 to 17 rows."""
    rows: list[NDArray[np.float32]] = []
    with (
        Model(path, ModelOptions(use_extra_buffers=use_extra_buffers)) as model,
        Context(model, ContextOptions(num_context=64, num_threads=2)) as context,
    ):
        for size in (1, 2, 4, 5, 6, 17):
            chunk = tokens[len(rows) : len(rows) + size]
            context.decode(chunk, len(rows), num_outputs=size)
            rows += [context.logits(row).copy() for row in range(size)]
    return np.stack(rows)
