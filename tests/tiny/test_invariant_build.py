"""The library that `make setup` builds is batch-invariant where its kernels were edited."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from edgespec.llama.model import Model
from edgespec.llama.tiny import TinySpec, write_tiny_model
from edgespec.measure.machine import this_machine
from edgespec.measure.probe import ROWS, probe_model

IS_X86 = platform.machine() in ("x86_64", "AMD64")


@pytest.mark.parametrize("quantization", ["Q4_K", "Q6_K"])
def test_k_quants_agree_for_every_number_of_rows(tmp_path: Path, quantization: str) -> None:
    spec = TinySpec(quantization=quantization)  # type: ignore[arg-type]
    with Model(write_tiny_model(tmp_path / "tiny.gguf", spec)) as model:
        chosen = probe_model(model, this_machine().num_threads)[-1]
    least = ROWS[-1] if IS_X86 else 1  # elsewhere the kernels are as they come
    assert chosen.max_rows >= least, chosen
