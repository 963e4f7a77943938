"""LoRAs through real llama.cpp: beside a model's matrices, or added to them, they say the same."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants
from numpy.typing import NDArray
from rigs import SMALL, OpenModel, WriteModel, corpus_tokens, file_size_limit
from tiny_models import TinySpec, write_tiny_model
from train_support import ABOUT, lora_beside, random_lora

from edgespec.errors import ModelFileError, StorageError, UsageError
from edgespec.gguf.file import GgufFile
from edgespec.gguf.quantize import quantized_rows, retype
from edgespec.gguf.trim import write_trimmed
from edgespec.learning.architecture import MATRICES
from edgespec.learning.lora import Lora, merge, write_lora
from edgespec.learning.trained import merged, serving
from edgespec.learning.trainings import TrainingStore
from edgespec.llama.context import Context, ContextOptions
from edgespec.llama.model import Model
from edgespec.machine.facts import file_fingerprint

PLAIN = dataclasses.replace(SMALL, quantization="F32", num_context=256)
KINDS = [dataclasses.replace(PLAIN, architecture=kind) for kind in ("llama", "qwen2")]
GEMMA = dataclasses.replace(PLAIN, architecture="gemma3", vocabulary="spm")
OPTIONS = ContextOptions(num_context=256, num_threads=1)


def shapes(path: Path) -> dict[str, tuple[int, int]]:
    tensors = GgufFile(path).tensors
    return {
        name: (int(tensor.shape[1]), int(tensor.shape[0]))
        for name, tensor in tensors.items()
        if name.startswith("blk.") and name.split(".")[2] in MATRICES and name.endswith("weight")
    }


def lora_for(path: Path, size: float = 0.1, seed: int = 0) -> Lora:
    return random_lora(shapes(path), size=size, seed=seed)


def logits(model: Model, tokens: Sequence[int], lora: Path | None = None) -> NDArray[np.float32]:
    """Logits after each token, with a LoRA beside the model or without."""
    with Context(model, OPTIONS) as context, contextlib.ExitStack() as beside:
        if lora is not None:
            beside.enter_context(lora_beside(context, lora))
        context.decode(tokens, 0, num_outputs=len(tokens))
        return np.stack([context.logits(row).copy() for row in range(len(tokens))])


@pytest.mark.parametrize("spec", [*KINDS, GEMMA], ids=lambda spec: spec.architecture)
def test_added_or_beside_is_the_same(
    open_model: OpenModel, write_model: WriteModel, tmp_path: Path, spec: TinySpec
) -> None:
    path, lora = write_model(spec), lora_for(write_model(spec))
    write_lora(lora, ABOUT, spec.architecture, tmp_path / "lora.gguf")
    merge(lora, path, path, tmp_path / "merged.gguf")
    model = open_model(spec)
    tokens = corpus_tokens(model, 24)
    plain = logits(model, tokens)
    beside = logits(model, tokens, tmp_path / "lora.gguf")
    with Model(tmp_path / "merged.gguf") as other:
        added = logits(other, tokens)
    change = np.abs(beside - plain).max()
    assert change > 0.5
    assert np.abs(beside - added).max() < 0.03 * change  # factors are multiplied as float16
    assert np.array_equal(logits(model, tokens), plain)


def test_a_lora_of_another_model_is_not_added(write_model: WriteModel, tmp_path: Path) -> None:
    whole = write_model(KINDS[0])
    for name, shape in (("blk.0.attn_q.weight", (9, 9)), ("blk.9.attn_q.weight", (64, 64))):
        with pytest.raises(ModelFileError, match="form that was trained"):
            merge(random_lora({name: shape}), whole, whole, tmp_path / "merged.gguf")
    assert not (tmp_path / "merged.gguf").exists()


EXACT_TYPES = ("F16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")


@pytest.mark.parametrize("name", [*EXACT_TYPES, "BF16", "Q4_K", "Q5_K", "Q6_K", "Q2_K", "IQ4_NL"])
def test_rows_of_any_type_are_read_as_they_were_meant(name: str) -> None:
    kind = GGMLQuantizationType[name]
    values = np.random.default_rng(0).normal(size=(6, 512)).astype(np.float32)
    rows = quantized_rows(values, kind)
    assert rows.shape == (6, quants.quant_shape_to_byte_shape(values.shape, kind)[-1])
    read = quants.dequantize(rows, kind)
    coarse = {"Q2_K": 0.35, "F16": 1e-3, "BF16": 5e-3, "Q8_0": 0.01}.get(name, 0.12)
    assert np.sqrt(((read - values) ** 2).mean()) < coarse
    if name in EXACT_TYPES:
        ours = quants.quantize(values, kind).view(np.uint8)
        assert (ours == rows.view(np.uint8).reshape(ours.shape)).mean() > 0.99


def test_rows_that_ggml_cannot_make_are_refused() -> None:
    values = np.ones((2, 48), np.float32)
    assert np.array_equal(quantized_rows(values, GGMLQuantizationType.F32).view(np.float32), values)
    for kind in (GGMLQuantizationType.Q4_0, GGMLQuantizationType.IQ2_XXS):
        with pytest.raises(UsageError, match="48 columns"):
            quantized_rows(values, kind)


def test_small_changes_survive_a_coarse_type(write_model: WriteModel, tmp_path: Path) -> None:
    """Merged into a form that was re-typed, they are there on average, if not in each number."""
    whole = write_model(dataclasses.replace(SMALL, quantization="Q8_0", width=128, ffn_width=256))
    lora = lora_for(whole, size=0.02)
    running, made = tmp_path / "running.gguf", tmp_path / "merged.gguf"
    retype(whole, running, "q4_0")
    merge(lora, whole, running, made)
    one, other = GgufFile(running).tensors, GgufFile(made).tensors
    for name in lora.changes:
        assert one[name].tensor_type == other[name].tensor_type == GGMLQuantizationType.Q4_0
        before, after = (quants.dequantize(t[name].data, t[name].tensor_type) for t in (one, other))
        change, wanted = (after - before).ravel(), lora.delta(name).ravel()
        kept = float(change @ wanted / (wanted @ wanted))
        assert 0.7 < kept < 1.3


def test_everything_but_the_changed_matrices_stays(write_model: WriteModel, tmp_path: Path) -> None:
    whole = write_model(SMALL)
    trimmed, made = tmp_path / "trimmed.gguf", tmp_path / "merged.gguf"
    write_trimmed(whole, trimmed, np.arange(300, dtype=np.int32), "test")
    name = "blk.1.ffn_down.weight"
    merge(random_lora({name: shapes(whole)[name]}), whole, trimmed, made)
    before, after = trimmed.read_bytes(), made.read_bytes()
    tensor = GgufFile(trimmed).tensors[name]
    start = int(tensor.data_offset)
    end = start + int(tensor.n_bytes)
    assert before[:start] == after[:start]
    assert before[end:] == after[end:]
    assert before[start:end] != after[start:end]


def test_a_merged_file_is_made_once_and_anew_for_another_form(
    write_model: WriteModel, tmp_path: Path
) -> None:
    whole, store = write_model(SMALL), TrainingStore(tmp_path / "store")
    pair = (ABOUT.target, file_fingerprint(whole))
    assert serving(store, *pair) is None
    store.ensure()
    about = dataclasses.replace(ABOUT, drafter=pair[1])
    write_lora(lora_for(whole), about, "llama", store.lora(*pair))
    assert serving(store, *pair) == store.lora(*pair)

    def file(running: Path) -> Path:
        return merged(store, store.lora(*pair), whole, running, file_fingerprint)

    first = file(whole)
    made = first.stat().st_mtime_ns
    assert file(whole) == first
    assert first.stat().st_mtime_ns == made
    trimmed = tmp_path / "trimmed.gguf"
    write_trimmed(whole, trimmed, np.arange(300, dtype=np.int32), "test")
    second = file(trimmed)
    assert second != first
    assert not first.exists()
    write_lora(lora_for(whole, seed=5), about, "llama", store.lora(*pair))
    third = file(trimmed)
    assert third != second
    assert store.all() == sorted([store.lora(*pair), third])
    with file_size_limit(1000), pytest.raises(StorageError, match="not enough space"):
        file(whole)


def test_a_lora_of_another_pair_does_not_serve(write_model: WriteModel, tmp_path: Path) -> None:
    store = TrainingStore(tmp_path)
    path = write_tiny_model(tmp_path / "model.gguf", SMALL)
    write_lora(lora_for(path), ABOUT, "llama", store.lora("9" * 32, "8" * 32))
    with pytest.raises(StorageError, match="another pair"):
        serving(store, "9" * 32, "8" * 32)
