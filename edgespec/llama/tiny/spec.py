"""What a tiny model is: its architecture, sizes, vocabulary and number formats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Architecture = Literal["llama", "qwen2", "qwen3", "gemma3", "mamba", "lfm2"]
VocabularyKind = Literal["bpe", "spm"]
Quantization = Literal["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q6_K"]

_BLOCK_SIZES = {"F32": 1, "F16": 1, "BF16": 1, "Q4_K": 256, "Q6_K": 256}
_BLOCK_SIZE = 32


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

    The defaults reach the fast matrix kernels, whose conditions in llama.cpp are:

    - AMX (ggml-cpu/amx/amx.cpp, `supports_op`; amx/mmq.cpp, `ggml_backend_amx_mul_mat`): Q4_0, Q4_1
      or Q8_0 with columns a multiple of 32, or Q4_K or Q6_K with columns a multiple of 256; rows a
      multiple of 32. The tile configuration, which some compilers get wrong, is loaded only for a
      pass of two or more tokens; a pass of one takes another kernel.
    - Repacking (ggml-cpu/repack.cpp, `ggml_repack_get_optimal_repack_type`): rows a multiple of 8;
      Q4_0 on every CPU that repacks at all, Q4_K from AVX2 or NEON on, Q8_0 and Q6_K on NEON.

    Raises ValueError for a choice that does not exist and sizes that do not fit together.
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

    def __post_init__(self) -> None:
        self._check_choices()
        self._check_sizes()
        self._check_block_sizes()
        if self.architecture == "mamba" and self.repetitive:
            raise ValueError("mamba has no feed-forward block to keep a habit in")

    def _check_sizes(self) -> None:
        counts = (self.num_vocab, self.num_layers, self.width, self.ffn_width, self.num_context)
        if min(counts) < 1 or self.num_heads < 1 or self.num_kv_heads < 1:
            raise ValueError("sizes of a tiny model must be at least 1")
        if self.sliding_window < 0 or self.seed < 0:
            raise ValueError("sliding_window and seed must not be negative")
        if self.width % (2 * self.num_heads):
            raise ValueError(f"width {self.width} gives {self.num_heads} heads no even size")
        if self.architecture == "lfm2" and self.num_layers < 2:
            raise ValueError("lfm2 has no attention before its second layer")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"{self.num_kv_heads} KV heads do not divide {self.num_heads} heads")

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

    def _check_choices(self) -> None:
        for value, choices in (
            (self.architecture, get_args(Architecture)),
            (self.vocabulary, get_args(VocabularyKind)),
            (self.quantization, get_args(Quantization)),
            (self.embedding_quantization, get_args(Quantization)),
        ):
            if value not in choices:
                raise ValueError(f"{value!r} is none of {', '.join(choices)}")

    def _check_block_sizes(self) -> None:
        head_block = _BLOCK_SIZES.get(self.embedding_quantization, _BLOCK_SIZE)
        if self.width % head_block:
            raise ValueError(f"width {self.width} is not a multiple of {head_block}")
        block = _BLOCK_SIZES.get(self.quantization, _BLOCK_SIZE)
        for size in (self.width, self.ffn_width):
            if size % block:
                raise ValueError(f"{size} is not a multiple of {self.quantization}'s {block}")


SELF_CHECK_SPECS = (
    TinySpec(quantization="Q4_0"),
    TinySpec(quantization="Q8_0"),
    TinySpec(quantization="Q4_K", head_quantization="Q6_K"),
)
"""Models that between them reach every fast matrix kernel a real quantized model is likely to."""
