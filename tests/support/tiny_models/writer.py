"""Writes a tiny model as a GGUF file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_VERSION, GGMLQuantizationType, GGUFWriter, quants
from numpy.typing import NDArray

from tiny_models.kquants import quantize_q4_k, quantize_q6_k
from tiny_models.spec import Quantization, TinySpec
from tiny_models.vocabulary import Vocabulary, build_vocabulary
from tiny_models.weights import (
    CONV_WIDTH,
    STATE_WIDTH,
    random_tensors,
    step_rank,
)

_PRE_TOKENIZER = "qwen2"
_ROPE_BASE = 10_000.0
_NORM_EPSILON = 1e-6


def write_tiny_model(path: Path, spec: TinySpec) -> Path:
    """Write the model that `spec` describes to `path` and return it; same spec, same bytes.

    Takes about a tenth of a second and one megabyte at the default sizes. A file that was there is
    replaced, not changed: it may be open.
    """
    vocabulary = build_vocabulary(spec.vocabulary, spec.num_vocab)
    scratch = path.with_suffix(".part")
    writer = GGUFWriter(scratch, spec.architecture)
    try:
        _add_sizes(writer, spec)
        _add_vocabulary(writer, spec, vocabulary)
        _add_tensors(writer, spec, vocabulary)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
    return scratch.replace(path)


def _add_sizes(writer: GGUFWriter, spec: TinySpec) -> None:
    writer.add_name(f"tiny {spec.architecture} {spec.vocabulary}")
    writer.add_quantization_version(GGML_QUANT_VERSION)
    writer.add_context_length(spec.num_context)
    writer.add_embedding_length(spec.width)
    writer.add_block_count(spec.num_layers)
    writer.add_layer_norm_rms_eps(_NORM_EPSILON)
    if spec.architecture == "mamba":
        writer.add_feed_forward_length(0)
        writer.add_head_count(0)
        writer.add_ssm_conv_kernel(CONV_WIDTH)
        writer.add_ssm_inner_size(2 * spec.width)
        writer.add_ssm_state_size(STATE_WIDTH)
        writer.add_ssm_time_step_rank(step_rank(spec))
        return
    writer.add_feed_forward_length(spec.ffn_width)
    writer.add_head_count(spec.num_heads)
    writer.add_key_length(spec.head_size)
    writer.add_value_length(spec.head_size)
    writer.add_rope_freq_base(_ROPE_BASE)
    if spec.architecture == "lfm2":
        writer.add_shortconv_l_cache(CONV_WIDTH)
        # A layer without KV heads is a convolution.
        heads = [spec.num_kv_heads if layer % 2 else 0 for layer in range(spec.num_layers)]
        writer.add_head_count_kv(heads)
        return
    writer.add_head_count_kv(spec.num_kv_heads)
    if spec.architecture == "gemma3" and spec.sliding_window:
        writer.add_sliding_window(spec.sliding_window)
        writer.add_sliding_window_pattern(2)


def _add_vocabulary(writer: GGUFWriter, spec: TinySpec, vocabulary: Vocabulary) -> None:
    if vocabulary.kind == "bpe":
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(_PRE_TOKENIZER)
        writer.add_token_merges(vocabulary.merges)
    else:
        writer.add_tokenizer_model("llama")
        writer.add_token_scores(vocabulary.scores)
        writer.add_add_space_prefix(spec.space_prefix)
    writer.add_token_list(vocabulary.texts)
    writer.add_token_types(vocabulary.types)
    writer.add_bos_token_id(vocabulary.bos)
    writer.add_eos_token_id(vocabulary.eos)
    writer.add_add_bos_token(vocabulary.kind == "spm")
    if spec.chat_template:
        writer.add_chat_template(vocabulary.chat_template)


def _add_tensors(writer: GGUFWriter, spec: TinySpec, vocabulary: Vocabulary) -> None:
    for tensor in random_tensors(spec, vocabulary):
        if not tensor.is_matrix:
            writer.add_tensor(tensor.name, tensor.data)
            continue
        name = spec.embedding_quantization if tensor.is_head else spec.quantization
        raw_type = GGMLQuantizationType[name]
        writer.add_tensor(tensor.name, _quantize(tensor.data, name), raw_dtype=raw_type)


def _quantize(data: NDArray[np.float32], name: Quantization) -> NDArray[np.generic]:
    """`data` in the format `name`, rows first, ready for the writer."""
    if name == "Q4_K":
        return quantize_q4_k(data)
    if name == "Q6_K":
        return quantize_q6_k(data)
    quantized: NDArray[np.generic] = quants.quantize(data, GGMLQuantizationType[name])
    return quantized
