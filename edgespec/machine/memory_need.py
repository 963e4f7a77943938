"""What a model takes of the machine's memory, told before it is loaded.

Counted is what must stay: weights once, KV cache, activations, vocabulary. llama.cpp copies many
weights into another layout ("repacking") and reads all others from the mapped file, so a process
seems to hold more than that for a while; the pages of the file whose weights were copied are the
first that the system takes back.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgespec.gguf.file import EMBEDDINGS, HEAD, GgufFile
from edgespec.llama.options import ContextOptions, KVType

_KV_BYTES: dict[KVType, float] = {"f32": 4, "f16": 2, "bf16": 2, "q8_0": 34 / 32}

_WIDE_ROWS = 4
"""Rows of floats as wide as the feed-forward layer that a pass holds for each token, measured."""

_TOKEN_BYTES = 400
"""Of each token of a vocabulary, in llama.cpp's tables and the byte bridge's, measured."""


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """Bytes that a model and one context over it take."""

    weights: int
    kv_cache: int
    compute: int
    vocabulary: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.kv_cache + self.compute + self.vocabulary


def memory_need(
    file: GgufFile, options: ContextOptions, max_rows: int, spoken: GgufFile | None = None
) -> MemoryNeed:
    """What the model of `file` takes with a context of `options`, from its metadata alone.

    `max_rows` is the most rows of one pass that get logits; `spoken` is the model whose vocabulary
    is used where `file` has none of its own (trimmed drafters).
    """
    num_vocab = _num_vocab(file)
    num_spoken = num_vocab if spoken is None else _num_vocab(spoken)
    width = int(file.value(f"{file.architecture}.embedding_length", 0))
    hidden = max(_by_layer(file, "feed_forward_length", 4 * width), default=4 * width)
    activations = options.num_batch * (4 * _WIDE_ROWS * hidden + 2 * options.num_context)
    return MemoryNeed(
        weights=sum(int(tensor.n_bytes) for tensor in file.tensors.values()),
        kv_cache=_kv_bytes(file, options, width),
        compute=activations + 4 * max_rows * num_vocab,
        vocabulary=_TOKEN_BYTES * num_spoken,
    )


def _kv_bytes(file: GgufFile, options: ContextOptions, width: int) -> int:
    """Cells for every layer, sliding windows included: the drafts' rollback needs them whole."""
    num_layers = int(file.value(f"{file.architecture}.block_count", 0))
    heads = max(_by_layer(file, "attention.head_count", 0), default=0)
    if not heads:  # recurrent: a small state
        return 0
    kv_heads = _by_layer(file, "attention.head_count_kv", heads)
    num_kv_heads = sum(kv_heads) if len(kv_heads) > 1 else num_layers * sum(kv_heads)
    sizes = [
        int(file.value(f"{file.architecture}.attention.{name}_length", width // heads)) * item
        for name, item in (
            ("key", _KV_BYTES[options.type_k]),
            ("value", _KV_BYTES[options.type_v]),
        )
    ]
    return int(options.num_context * num_kv_heads * sum(sizes))


def _by_layer(file: GgufFile, name: str, default: int) -> list[int]:
    """A number of the architecture: one for all layers, or one for each."""
    value = file.value(f"{file.architecture}.{name}", default)
    return [int(number) for number in np.atleast_1d(np.asarray(value))]


def _num_vocab(file: GgufFile) -> int:
    """Rows of the table of embeddings, or of the head where it is trimmed."""
    tables = [file.tensors[name] for name in (HEAD, EMBEDDINGS) if name in file.tensors]
    return max((int(table.shape[-1]) for table in tables), default=0)
