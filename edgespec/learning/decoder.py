"""A decoder's pass in torch, over the weights of a GGUF file in its own layout.

llama.cpp trains nothing that is quantized, and other libraries' weights are laid out otherwise (of
architecture llama, rows of queries and keys are permuted in GGUF). Here names and layout stay those
of the file, so what is learned can be written as it is. Held to llama.cpp's logits by a test.

Weights are frozen; a change of a matrix is a pair of trainable factors beside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from gguf import quants
from gguf.gguf_reader import ReaderTensor
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from edgespec.gguf.embeddings import EmbeddingTable
from edgespec.gguf.file import GgufFile
from edgespec.learning.architecture import MATRICES, DecoderForm, read_form

Factors = Mapping[str, tuple[Tensor, Tensor]]
"""Trainable (down, up) by the name of the tensor that they change."""


_ROUND = 32
"""Passes are of multiples of so many tokens: for each new size of a bfloat16 product kernels are
made, which takes longer than to use them."""

MOST_KEPT = 1536 << 20
"""Bytes that one lesson may keep for the way back, so as to compute nothing twice."""

_TRIAL_SIZES = (768, 256, 1536)
_NUM_TRIALS = 5


class Decoder:
    """Weights of a whole drafter's layers, and those rows of its head that are kept."""

    def __init__(self, file: GgufFile, kept: NDArray[np.int32], dtype: torch.dtype) -> None:
        """`kept[i]` is the token of row i of the head; matrices are multiplied as `dtype`.

        Raises ModelFileError for a model that cannot be trained.
        """
        self.form: DecoderForm = read_form(file)
        self.dtype = dtype
        self._table = EmbeddingTable(file.path)
        self._weights = {
            name: _values(tensor).to(dtype if len(tensor.shape) == 2 else torch.float32)
            for name, tensor in file.tensors.items()
            if name.startswith("blk.")
        }
        self._output_norm = _values(file.tensors["output_norm.weight"])
        head = file.tensors.get("output.weight") or file.tensors["token_embd.weight"]
        rows = quants.dequantize(head.data[kept], head.tensor_type)
        self.head = torch.from_numpy(np.ascontiguousarray(rows, np.float32)).to(dtype)

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """Names and shapes, (columns out, columns in), of what may be changed."""
        names = (
            f"blk.{layer}.{name}.weight"
            for layer in range(self.form.num_layers)
            for name in MATRICES
        )
        return {
            name: (self._weights[name].shape[0], self._weights[name].shape[1]) for name in names
        }

    def hidden(self, tokens: Sequence[int], first: int, factors: Factors, scale: float) -> Tensor:
        """Final hidden states after the tokens from number `first` on: (n, width), float32.

        `scale` multiplies what the factors add.
        """
        state = self._embedded(tokens)
        for layer in self._layers(len(state), factors, scale):
            state = layer(state)
        return self._norm(state[first : len(tokens)], self._output_norm)

    def study(
        self,
        tokens: Sequence[int],
        first: int,
        factors: Factors,
        scale: float,
        learn: Callable[[Tensor], Tensor],
    ) -> None:
        """Add to the factors' gradients; `learn` gives those of the hidden states that it gets.

        Where all that is kept for the way back takes more than `MOST_KEPT`, each layer is computed
        twice, and what is kept is one layer's at a time.
        """
        states = [self._embedded(tokens)]
        layers = self._layers(len(states[0]), factors, scale)
        if self._kept_bytes(len(states[0])) <= MOST_KEPT:
            state = states[0]
            for layer in layers:
                state = layer(state)
            hidden = self._norm(state[first : len(tokens)], self._output_norm)
            hidden.backward(learn(hidden.detach()))
            return
        with torch.no_grad():
            for layer in layers:
                states.append(layer(states[-1]))
        last = states.pop().requires_grad_()
        hidden = self._norm(last[first : len(tokens)], self._output_norm)
        hidden.backward(learn(hidden.detach()))
        gradient = last.grad
        for layer, state in zip(reversed(layers), reversed(states), strict=True):
            layer(state.requires_grad_()).backward(gradient)
            gradient, state.grad = state.grad, None

    def _kept_bytes(self, count: int) -> int:
        """About what all layers keep for the way back over `count` tokens."""
        widths = sum(num_out + num_in for num_out, num_in in self.matrices.values())
        return 2 * count * widths * 4

    def _embedded(self, tokens: Sequence[int]) -> Tensor:
        """What is read, with tokens at the end that nobody sees, up to a round number."""
        return torch.from_numpy(self._table.rows((*tokens, *[0] * (-len(tokens) % _ROUND))))

    def _layers(self, count: int, factors: Factors, scale: float) -> list[_Layer]:
        """The layers for a sequence of `count` tokens."""
        form = self.form
        masks = {window: _mask(count, window) for window in set(form.windows)}
        turns = {base: self._rotation(count, base) for base in set(form.rope_bases)}
        places = zip(form.rope_bases, form.windows, strict=True)
        return [
            _Layer(self, number, factors, scale, turns[base], masks[window])
            for number, (base, window) in enumerate(places)
        ]

    def logits(self, hidden: Tensor) -> Tensor:
        """One for each row of the head: (n, num_kept), float32."""
        count = len(hidden)
        rows = functional.pad(hidden.to(self.dtype), (0, 0, 0, -count % _ROUND))
        return functional.linear(rows, self.head)[:count].float()

    def weight(self, name: str) -> Tensor | None:
        """A tensor of a layer, if the file has it."""
        return self._weights.get(name)

    def _norm(self, values: Tensor, weight: Tensor) -> Tensor:
        return functional.rms_norm(values, weight.shape, weight, self.form.norm_epsilon)

    def _rotation(self, count: int, base: float) -> tuple[Tensor, Tensor]:
        """Cosines and sines by position and pair: (count, rope_size / 2) each."""
        size = self.form.rope_size
        frequencies = base ** -(np.arange(0, size, 2, dtype=np.float64) / size)
        if self.form.rope_factors is not None:
            frequencies = frequencies / self.form.rope_factors
        angles = torch.from_numpy(np.outer(np.arange(count), frequencies)).float()
        return angles.cos(), angles.sin()


class _Layer:
    """One layer's pass, with what it needs to know of the sequence."""

    def __init__(
        self,
        decoder: Decoder,
        layer: int,
        factors: Factors,
        scale: float,
        rotation: tuple[Tensor, Tensor],
        mask: Tensor,
    ) -> None:
        self._decoder = decoder
        self._form = decoder.form
        self._prefix = f"blk.{layer}."
        self._factors = factors
        self._scale = scale
        self._rotation = rotation
        self._mask = mask

    def __call__(self, state: Tensor) -> Tensor:
        attended = self._attention(self._normed(state, "attn_norm"))
        state = state + self._normed(attended, "post_attention_norm")
        fed = self._normed(state, "ffn_norm")
        gate, up = self._linear(fed, "ffn_gate"), self._linear(fed, "ffn_up")
        if self._form.activation == "silu":
            gate = functional.silu(gate)
        else:
            gate = functional.gelu(gate, approximate="tanh")
        return state + self._normed(self._linear(gate * up, "ffn_down"), "post_ffw_norm")

    def _attention(self, fed: Tensor) -> Tensor:
        form, count = self._form, len(fed)
        queries = self._linear(fed, "attn_q").view(count, form.num_heads, form.head_size)
        keys = self._linear(fed, "attn_k").view(count, form.num_kv_heads, form.head_size)
        values = self._linear(fed, "attn_v").view(count, form.num_kv_heads, -1)
        queries = self._rotated(self._normed(queries, "attn_q_norm"))
        keys = self._rotated(self._normed(keys, "attn_k_norm"))
        groups = form.num_heads // form.num_kv_heads
        heads = functional.scaled_dot_product_attention(
            queries.transpose(0, 1)[None],
            keys.repeat_interleave(groups, dim=1).transpose(0, 1)[None],
            values.repeat_interleave(groups, dim=1).transpose(0, 1)[None],
            attn_mask=self._mask,
            scale=form.attention_scale,
        )
        return self._linear(heads[0].transpose(0, 1).reshape(count, -1), "attn_output")

    def _rotated(self, heads: Tensor) -> Tensor:
        """Turn pairs of elements by their position's angles; (count, num_heads, head_size)."""
        size = self._form.rope_size
        cosines, sines = (part[:, None, :] for part in self._rotation)
        turned, rest = heads[..., :size], heads[..., size:]
        if self._form.interleaved:
            one, other = turned[..., 0::2], turned[..., 1::2]
        else:
            one, other = turned[..., : size // 2], turned[..., size // 2 :]
        parts = (one * cosines - other * sines, one * sines + other * cosines)
        if self._form.interleaved:
            turned = torch.stack(parts, dim=-1).flatten(-2)
        else:
            turned = torch.cat(parts, dim=-1)
        return torch.cat((turned, rest), dim=-1)

    def _linear(self, fed: Tensor, name: str) -> Tensor:
        decoder = self._decoder
        weight = decoder.weight(f"{self._prefix}{name}.weight")
        fed = fed.to(decoder.dtype)
        result = functional.linear(fed, weight).float()
        factors = self._factors.get(f"{self._prefix}{name}.weight")
        if factors is not None:
            down, up = (factor.to(decoder.dtype) for factor in factors)
            change = functional.linear(functional.linear(fed, down), up)
            result = result + self._scale * change.float()
        bias = decoder.weight(f"{self._prefix}{name}.bias")
        return result if bias is None else result + bias

    def _normed(self, values: Tensor, name: str) -> Tensor:
        weight = self._decoder.weight(f"{self._prefix}{name}.weight")
        return values if weight is None else self._decoder._norm(values, weight)


def fastest_dtype() -> torch.dtype:
    """What this machine multiplies fastest, by a small trial: bfloat16 or float32."""
    spent: dict[torch.dtype, float] = {}
    for dtype in (torch.float32, torch.bfloat16):
        one, other = (torch.ones(_TRIAL_SIZES[0], size, dtype=dtype) for size in _TRIAL_SIZES[1:])
        for _ in range(_NUM_TRIALS):  # the first one is slow
            started = time.perf_counter()
            functional.linear(one.T, other.T)
            elapsed = time.perf_counter() - started
            spent[dtype] = min(elapsed, spent.get(dtype, elapsed))
    return min(spent, key=lambda dtype: spent[dtype])


def _values(tensor: ReaderTensor) -> Tensor:
    """A tensor of the file as float32."""
    values = quants.dequantize(tensor.data, tensor.tensor_type)
    return torch.from_numpy(np.array(values, np.float32))


def _mask(count: int, window: int) -> Tensor:
    """What each token sees, itself and those before it, `window` in all if that is not 0."""
    before = torch.arange(count)[:, None] - torch.arange(count)[None, :]
    seen = before >= 0
    return seen if not window else seen & (before < window)
