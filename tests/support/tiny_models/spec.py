"""What a tiny model is: its architecture, sizes, vocabulary and number formats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Architecture = Literal["llama", "qwen2", "qwen3", "gemma3", "mamba", "lfm2"]
VocabularyKind = Literal["bpe", "spm"]
Quantization = Literal["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q6_K"]


@dataclass(frozen=True, slots=True)
class TinySpec:
    """A random model that llama.cpp loads and decodes as it would a real one.

    `mamba` is recurrent and `lfm2` hybrid (short convolutions, attention in every second layer):
    in a context at its defaults llama.cpp can take the last tokens back of neither. `gemma3`
    alternates between attention over `sliding_window` tokens (0: over all) and over all.

    `quantization` is the format of every matrix, `head_quantization` that of the embeddings and the
    head (None: the same). A `tied` model has no head of its own. `space_prefix` is SentencePiece's
    habit of putting a space before a text: Llama has it, Gemma has not; BPE ignores it.

    A `repetitive` model nearly always says the same token after a token, in rings of 16, so a
    drafter that looks text up is mostly right. Otherwise the past decides more often than the
    habit, and drafts are now right, now wrong. `mamba`, without feed-forward blocks, has no habit.

    The defaults reach the fast matrix kernels (edgespec/machine/check_models.py).
    """

    architecture: Architecture = "llama"
    vocabulary: VocabularyKind = "bpe"
    num_vocab: int = 512
    num_layers: int = 2
    width: int = 256
    ffn_width: int = 512
    num_heads: int = 4
    num_kv_heads: int = 2
    num_context: int = 2048
    quantization: Quantization = "Q4_0"
    head_quantization: Quantization | None = None
    tied: bool = True
    sliding_window: int = 512
    space_prefix: bool = True
    chat_template: bool = True
    repetitive: bool = False
    seed: int = 0

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.width // self.num_heads

    @property
    def kv_width(self) -> int:
        """Width of the keys, and of the values, of one token."""
        return self.head_size * self.num_kv_heads

    @property
    def embedding_quantization(self) -> Quantization:
        """Format of the embeddings and the head."""
        return self.head_quantization or self.quantization
