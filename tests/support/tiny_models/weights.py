"""Random weights whose greedy text neither stands still nor is all noise.

With plain random weights a tied model says its last token for ever: the residual stream still
carries that token's embedding, and an embedding is most like itself. Two things undo this. The
last norm turns the signs of random dimensions, which makes "like itself" meaningless, and the
feed-forward blocks write more than the embedding did, which makes the map from a token to the next
one-way (a symmetric one ends in two tokens that follow each other). Attention brings in the past.

What makes text repeat is a habit: the first feed-forward block is a memory (Geva et al. 2021) with
one key per token, its embedding, and as value the head's row of its follower in a ring.
How loud the habit is, against the rest, decides how often a model falls back into a ring.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from gguf import TokenType
from numpy.typing import NDArray

from tiny_models.spec import TinySpec
from tiny_models.vocabulary import Vocabulary

Weights = NDArray[np.float32]

CONV_WIDTH = 4
"""Tokens that a short convolution of `mamba` or `lfm2` sees."""

STATE_WIDTH = 16
"""Numbers of state per channel of `mamba`."""

_RING_SIZE = 16
_QUERY_GAIN = 1.4
_GATED_RMS = 0.6
"""Root mean square of silu(a) * b, for a and b of variance 1; near enough for gelu."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of the file; only matrices are quantized, `is_head` tells in which format."""

    name: str
    data: Weights
    is_matrix: bool = False
    is_head: bool = False


@dataclass(frozen=True, slots=True)
class _Shares:
    """Root mean square of what each part adds to the stream, the embedding being 1."""

    past: float
    habit: float
    noise: float


_REPETITIVE = _Shares(past=0.8, habit=1.0, noise=2.0)
_VARIED = _Shares(past=1.0, habit=0.75, noise=2.0)
_LOGIT_DEVIATION = 4.0


def step_rank(spec: TinySpec) -> int:
    """Rank of `mamba`'s time step."""
    return max(1, spec.width // 16)


def random_tensors(spec: TinySpec, vocabulary: Vocabulary) -> Iterator[Tensor]:
    """Every tensor of the model, matrices as (rows, columns) float32; the same for the same spec.

    Each tensor has its own stream of random numbers, so equal names give equal numbers whatever
    else the specs differ in.
    """
    return _Generator(spec, vocabulary).tensors()


class _Generator:
    def __init__(self, spec: TinySpec, vocabulary: Vocabulary) -> None:
        self._spec = spec
        embedding_rms = _LOGIT_DEVIATION / spec.width**0.5
        # Gemma scales embeddings up before the first layer.
        scale = spec.width**0.5 if spec.architecture == "gemma3" else 1.0
        self._stream_rms = embedding_rms * scale
        self._shares = _REPETITIVE if spec.repetitive else _VARIED
        self._loudness = _loudness(vocabulary)
        table = (spec.num_vocab, spec.width)
        self._embeddings = self._normal("token_embd.weight", table, embedding_rms)
        if spec.tied:
            self._embeddings *= self._loudness[:, None]
            self._head = self._embeddings
        else:
            self._head = self._normal("output.weight", table, embedding_rms)
            self._head *= self._loudness[:, None]
        self._signs = np.sign(self._normal("output_norm.weight", (spec.width,), 1.0))

    def tensors(self) -> Iterator[Tensor]:
        spec = self._spec
        yield Tensor("token_embd.weight", self._embeddings, is_matrix=True, is_head=True)
        if not spec.tied:
            yield Tensor("output.weight", self._head, is_matrix=True, is_head=True)
        name = "token_embd_norm" if spec.architecture == "lfm2" else "output_norm"
        yield Tensor(f"{name}.weight", self._signs)
        for layer in range(spec.num_layers):
            yield from self._layer(layer)

    def _layer(self, layer: int) -> Iterator[Tensor]:
        block = f"blk.{layer}"
        yield self._constant(f"{block}.attn_norm.weight", self._spec.width)
        if self._spec.architecture == "mamba":
            yield from self._state_space(block)
            return
        if self._spec.architecture == "lfm2" and layer % 2 == 0:
            yield from self._short_convolution(block)
        else:
            yield from self._attention(block)
        yield self._constant(f"{block}.ffn_norm.weight", self._spec.width)
        yield from self._memory(block) if layer == 0 else self._feed_forward(block)

    def _attention(self, block: str) -> Iterator[Tensor]:
        spec = self._spec
        heads_width = spec.head_size * spec.num_heads
        for part, width in (("q", heads_width), ("k", spec.kv_width), ("v", spec.kv_width)):
            gain = 1.0 if part == "v" else _QUERY_GAIN
            yield self._matrix(f"{block}.attn_{part}.weight", width, spec.width, gain)
            if spec.architecture == "qwen2":
                bias = f"{block}.attn_{part}.bias"
                yield Tensor(bias, self._normal(bias, (width,), 0.2))
            if part != "v" and spec.architecture in ("qwen3", "gemma3", "lfm2"):
                norm = f"{block}.attn_{part}_norm.weight"
                yield self._constant(norm, spec.head_size, _QUERY_GAIN)
        written = self._shares.past * self._stream_rms
        yield self._matrix(f"{block}.attn_output.weight", spec.width, heads_width, written)
        if spec.architecture == "gemma3":
            yield self._constant(f"{block}.post_attention_norm.weight", spec.width, written)

    def _feed_forward(self, block: str) -> Iterator[Tensor]:
        spec = self._spec
        written = self._shares.noise * self._stream_rms
        yield self._matrix(f"{block}.ffn_gate.weight", spec.ffn_width, spec.width)
        yield self._matrix(f"{block}.ffn_up.weight", spec.ffn_width, spec.width)
        gain = written / _GATED_RMS
        yield self._matrix(f"{block}.ffn_down.weight", spec.width, spec.ffn_width, gain)
        if spec.architecture == "gemma3":
            yield self._constant(f"{block}.post_ffw_norm.weight", spec.width, written)

    def _memory(self, block: str) -> Iterator[Tensor]:
        """The habit: a token's own key answers silu(sqrt(width)) * sqrt(width), others about 1."""
        spec = self._spec
        tokens, followers = self._rings()
        keys = np.zeros((spec.ffn_width, spec.width), dtype=np.float32)
        keys[: len(tokens)] = _unit_rows(self._embeddings[tokens])
        values = np.zeros((spec.width, spec.ffn_width), dtype=np.float32)
        values[:, : len(tokens)] = (_unit_rows(self._head[followers]) * self._signs).T
        written = self._shares.habit * self._stream_rms
        yield Tensor(f"{block}.ffn_gate.weight", keys, is_matrix=True)
        yield Tensor(f"{block}.ffn_up.weight", keys, is_matrix=True)
        values *= np.float32(written * spec.width**-0.5)
        yield Tensor(f"{block}.ffn_down.weight", values, is_matrix=True)
        if spec.architecture == "gemma3":
            yield self._constant(f"{block}.post_ffw_norm.weight", spec.width, written)

    def _rings(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tokens of ordinary text, as many as the memory holds, and the follower of each."""
        tokens = np.flatnonzero(self._loudness == 1.0)
        order = self._stream("rings").permutation(tokens)[: self._spec.ffn_width]
        starts = range(0, len(order), _RING_SIZE)
        rings = [np.roll(order[start : start + _RING_SIZE], -1) for start in starts]
        return order, np.concatenate(rings)

    def _short_convolution(self, block: str) -> Iterator[Tensor]:
        width = self._spec.width
        yield self._matrix(f"{block}.shortconv.in_proj.weight", 3 * width, width)
        name = f"{block}.shortconv.conv.weight"
        yield Tensor(name, self._normal(name, (width, CONV_WIDTH), CONV_WIDTH**-0.5))
        # The product of three projections has long tails: half as loud disturbs as much.
        written = 0.5 * self._shares.past * self._stream_rms
        yield self._matrix(f"{block}.shortconv.out_proj.weight", width, width, written)

    def _state_space(self, block: str) -> Iterator[Tensor]:
        width, rank = self._spec.width, step_rank(self._spec)
        inner = 2 * width
        yield self._matrix(f"{block}.ssm_in.weight", 2 * inner, width)
        name = f"{block}.ssm_conv1d.weight"
        yield Tensor(name, self._normal(name, (inner, CONV_WIDTH), CONV_WIDTH**-0.5))
        yield self._constant(f"{block}.ssm_conv1d.bias", inner, 0.1)
        yield self._matrix(f"{block}.ssm_x.weight", rank + 2 * STATE_WIDTH, inner)
        name = f"{block}.ssm_dt.weight"
        yield Tensor(name, self._normal(name, (inner, rank), rank**-0.5))
        yield self._constant(f"{block}.ssm_dt.bias", inner, -2.0)
        decay = np.tile(-np.arange(1, STATE_WIDTH + 1, dtype=np.float32), (inner, 1))
        yield Tensor(f"{block}.ssm_a", decay)
        yield self._constant(f"{block}.ssm_d", inner)
        gain = self._shares.noise * self._stream_rms / _GATED_RMS
        yield self._matrix(f"{block}.ssm_out.weight", width, inner, gain)

    def _matrix(self, name: str, rows: int, columns: int, gain: float = 1.0) -> Tensor:
        """A matrix that turns values of variance 1 into values of root mean square `gain`."""
        return Tensor(name, self._normal(name, (rows, columns), gain * columns**-0.5), True)

    def _constant(self, name: str, size: int, value: float = 1.0) -> Tensor:
        return Tensor(name, np.full(size, value, dtype=np.float32))

    def _normal(self, name: str, shape: tuple[int, ...], deviation: float) -> Weights:
        values = self._stream(name).standard_normal(shape, dtype=np.float32)
        return values * np.float32(deviation)

    def _stream(self, name: str) -> np.random.Generator:
        return np.random.default_rng([self._spec.seed, zlib.crc32(name.encode())])


def _unit_rows(rows: Weights) -> Weights:
    lengths: Weights = np.linalg.norm(rows, axis=-1, keepdims=True)
    return rows / lengths


def _loudness(vocabulary: Vocabulary) -> Weights:
    """How far each token's logit goes: broken characters are rare, control tokens rarer still."""

    def of_token(token: int) -> float:
        if vocabulary.types[token] not in (TokenType.NORMAL, TokenType.BYTE):
            return 0.05
        piece = vocabulary.token_bytes(token)
        return 1.0 if piece.decode("utf-8", "ignore").encode("utf-8") == piece else 0.5

    return np.array([of_token(token) for token in range(len(vocabulary.texts))], dtype=np.float32)
