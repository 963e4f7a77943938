"""How a context is set up, as a value; importing this does not load the native library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

KVType = Literal["f32", "f16", "bf16", "q8_0"]


@dataclass(frozen=True, slots=True)
class ContextOptions:
    """Size and arithmetic of a context.

    `num_batch` is the most tokens of one pass; llama.cpp computes them together, so it also bounds
    how long a pass can be (and, with it, the memory for activations).
    """

    num_context: int
    num_threads: int
    num_batch: int = 512
    num_sequences: int = 1
    type_k: KVType = "f16"
    type_v: KVType = "f16"
    flash_attention: bool = True
    hidden_states: bool = False
