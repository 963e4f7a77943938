"""The pass in torch against llama.cpp's, and its gradients against finite differences."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFWriter
from numpy.typing import NDArray
from rigs import SMALL, corpus_tokens
from tiny_models import TinySpec, write_tiny_model
from train_support import ABOUT, lora_beside, random_lora

from edgespec.errors import ModelFileError
from edgespec.gguf.file import GgufFile
from edgespec.learning import decoder as decoder_module
from edgespec.learning.decoder import Decoder, fastest_dtype
from edgespec.learning.lora import Lora, write_lora
from edgespec.llama.context import Context, ContextOptions
from edgespec.llama.model import Model

PLAIN = dataclasses.replace(SMALL, quantization="F32", num_layers=4)
SPECS = [
    PLAIN,
    dataclasses.replace(PLAIN, architecture="qwen2", tied=False),
    dataclasses.replace(PLAIN, architecture="qwen3", num_kv_heads=1),
    dataclasses.replace(PLAIN, architecture="gemma3", vocabulary="spm", sliding_window=16),
    dataclasses.replace(PLAIN, architecture="gemma3", vocabulary="spm", sliding_window=0),
    dataclasses.replace(PLAIN, quantization="Q8_0"),
]
OPTIONS = ContextOptions(256, 1, type_k="f32", type_v="f32", flash_attention=False)

each_spec = pytest.mark.parametrize(
    "spec", SPECS, ids=lambda s: f"{s.architecture}-{s.quantization}-{s.sliding_window}"
)


def reference(model: Model, tokens: list[int], lora: Path | None = None) -> NDArray[np.float32]:
    with Context(model, OPTIONS) as context, contextlib.ExitStack() as beside:
        if lora is not None:
            beside.enter_context(lora_beside(context, lora))
        context.decode(tokens, 0, num_outputs=len(tokens))
        return np.stack([context.logits(row).copy() for row in range(len(tokens))])


def opened(path: Path, dtype: torch.dtype = torch.float32) -> Decoder:
    file = GgufFile(path)
    count = int(file.tensors["token_embd.weight"].shape[1])
    return Decoder(file, np.arange(count, dtype=np.int32), dtype)


def factors_of(lora: Lora) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    return {
        name: (torch.from_numpy(change.down), torch.from_numpy(change.up))
        for name, change in lora.changes.items()
    }


@each_spec
def test_the_pass_is_llama_cpps(tmp_path: Path, spec: TinySpec) -> None:
    path = write_tiny_model(tmp_path / "model.gguf", spec)
    decoder = opened(path)
    lora = random_lora(decoder.matrices, size=0.05)
    write_lora(lora, ABOUT, spec.architecture, tmp_path / "lora.gguf")
    with Model(path) as model:
        tokens = corpus_tokens(model, 48)
        plain = reference(model, tokens)
        changed = reference(model, tokens, tmp_path / "lora.gguf")
    with torch.no_grad():
        ours = decoder.logits(decoder.hidden(tokens, 0, {}, 1.0)).numpy()
        part = decoder.logits(decoder.hidden(tokens, 30, {}, 1.0)).numpy()
        tuned = decoder.logits(decoder.hidden(tokens, 0, factors_of(lora), 1.0)).numpy()
    close = 0.02 if spec.quantization == "F32" else 0.5  # llama.cpp rounds what it multiplies
    scale = np.abs(plain).max()
    assert np.abs(ours - plain).max() < close * scale / 4
    assert np.abs(tuned - changed).max() < close * scale
    assert np.abs(changed - plain).max() > 0.1 * scale
    np.testing.assert_allclose(part, ours[30:], atol=1e-4 * scale)


def test_a_window_matters(tmp_path: Path) -> None:
    """Else the test above would hold without windows."""
    near, far = (dataclasses.replace(SPECS[3], sliding_window=size) for size in (16, 0))
    logits = []
    for number, spec in enumerate((near, far)):
        decoder = opened(write_tiny_model(tmp_path / f"{number}.gguf", spec))
        with torch.no_grad():
            logits.append(decoder.logits(decoder.hidden(list(range(48)), 0, {}, 1.0)).numpy())
    assert np.abs(logits[0] - logits[1])[-1].max() > 0.1


def test_rotations_of_long_contexts(tmp_path: Path) -> None:
    """Llama 3's factors of the frequencies, which a file may hold."""
    path = write_tiny_model(tmp_path / "model.gguf", PLAIN)
    factors = np.linspace(1.0, 8.0, PLAIN.head_size // 2).astype(np.float32)
    _with_tensor(path, tmp_path / "long.gguf", "rope_freqs.weight", factors)
    with Model(tmp_path / "long.gguf") as model:
        tokens = corpus_tokens(model, 60)
        expected = reference(model, tokens)
    with torch.no_grad():
        long, short = (
            decoder.logits(decoder.hidden(tokens, 0, {}, 1.0)).numpy()
            for decoder in (opened(tmp_path / "long.gguf"), opened(path))
        )
    scale = np.abs(expected).max()
    assert np.abs(long - expected).max() < 0.005 * scale
    assert np.abs(short - expected).max() > 0.05 * scale


def _with_tensor(source: Path, path: Path, name: str, values: NDArray[np.float32]) -> None:
    file = GgufFile(source)
    writer = GGUFWriter(path, file.architecture)
    for field in file.fields():
        if not field.name.startswith("general.architecture"):
            kinds = field.types
            sub = kinds[1] if len(kinds) > 1 else None
            writer.add_key_value(field.name, field.contents(), kinds[0], sub)
    for tensor in file.tensors.values():
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("most_kept", [0, decoder_module.MOST_KEPT], ids=["twice", "once"])
@pytest.mark.parametrize("spec", [SPECS[0], SPECS[3]], ids=["llama", "gemma3"])
def test_gradients_are_those_of_finite_differences(
    tmp_path: Path, spec: TinySpec, most_kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_module, "MOST_KEPT", most_kept)
    decoder = opened(write_tiny_model(tmp_path / "model.gguf", spec))
    factors = factors_of(random_lora(decoder.matrices, size=0.1))
    tokens = list(range(5, 25))

    def loss() -> torch.Tensor:
        hidden = decoder.hidden(tokens, 4, factors, 0.7)
        logits = decoder.logits(hidden)
        return torch.nn.functional.cross_entropy(logits, torch.arange(16))

    flat = [factor.requires_grad_() for pair in factors.values() for factor in pair]
    loss().backward()
    gradients = [factor.grad.clone() for factor in flat if factor.grad is not None]
    assert len(gradients) == len(flat)
    assert all(float(gradient.abs().max()) > 0 for gradient in gradients)

    random = torch.Generator().manual_seed(1)
    for factor, gradient in zip(flat, gradients, strict=True):
        way = torch.sign(gradient) * torch.rand(factor.shape, generator=random)
        size = 2e-2 / float((gradient * way).sum())
        with torch.no_grad():
            factor += size * way
            above = float(loss())
            factor -= 2 * size * way
            below = float(loss())
            factor += size * way
        assert (above - below) / 2 == pytest.approx(2e-2, rel=0.1)

    # Layer by layer, as lessons are studied, they are the same.
    for factor in flat:
        factor.grad = None
    losses = []

    def learn(hidden: torch.Tensor) -> torch.Tensor:
        rows = hidden.clone().requires_grad_()
        value = torch.nn.functional.cross_entropy(decoder.logits(rows), torch.arange(16))
        value.backward()
        losses.append(float(value.detach()))
        assert rows.grad is not None
        return rows.grad

    decoder.study(tokens, 4, factors, 0.7, learn)
    assert losses == [pytest.approx(float(loss().detach()), rel=1e-5)]
    for factor, gradient in zip(flat, gradients, strict=True):
        assert factor.grad is not None
        torch.testing.assert_close(factor.grad, gradient, rtol=1e-3, atol=1e-5)


def test_bfloat16_is_near_enough(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "model.gguf", PLAIN)
    tokens = list(range(40))
    with torch.no_grad():
        fine, coarse = (
            decoder.logits(decoder.hidden(tokens, 0, {}, 1.0))
            for decoder in (opened(path), opened(path, torch.bfloat16))
        )
    assert float((fine - coarse).abs().mean()) < 0.05 * float(fine.std())
    assert fastest_dtype() in (torch.float32, torch.bfloat16)


@pytest.mark.parametrize("architecture", ["mamba", "lfm2"])
def test_what_cannot_be_trained_is_refused(tmp_path: Path, architecture: str) -> None:
    spec = TinySpec(architecture="mamba" if architecture == "mamba" else "lfm2")
    path = write_tiny_model(tmp_path / "model.gguf", spec)
    with pytest.raises(ModelFileError, match=f"its architecture is {architecture}"):
        opened(path)


def test_layers_of_another_form_are_refused(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "model.gguf", PLAIN)
    _with_tensor(
        path, tmp_path / "odd.gguf", "blk.0.ffn_gate_inp.weight", np.ones((4, 64), np.float32)
    )
    with pytest.raises(ModelFileError, match="ffn_gate_inp"):
        opened(tmp_path / "odd.gguf")
