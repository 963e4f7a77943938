"""llama.cpp loads the tiny models and treats them as it would real ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import llama_cpp as native
import numpy as np
import pytest
from numpy.typing import NDArray
from raw_llama import PROMPT, RawModel
from tiny_models import (
    Architecture,
    Quantization,
    TinySpec,
    VocabularyKind,
    write_tiny_model,
)

from edgespec.machine.check_models import write_check_models

ARCHITECTURES: tuple[Architecture, ...] = ("llama", "qwen2", "qwen3", "gemma3", "mamba", "lfm2")
KINDS: tuple[VocabularyKind, ...] = ("bpe", "spm")


class Loader(Protocol):
    def __call__(self, spec: TinySpec, *, use_extra_bufts: bool = True) -> RawModel: ...


@pytest.fixture(name="load")
def fixture_load(tmp_path: Path) -> Iterator[Loader]:
    opened: list[RawModel] = []

    def load(spec: TinySpec, *, use_extra_bufts: bool = True) -> RawModel:
        path = write_tiny_model(tmp_path / "model.gguf", spec)
        opened.append(RawModel(path, use_extra_bufts=use_extra_bufts))
        return opened[-1]

    yield load
    for model in opened:
        model.close()


def greedy(logits: NDArray[np.float32]) -> int:
    return int(logits.argmax())


def looked_up(tokens: Sequence[int]) -> float:
    """Share of tokens that follow as they did the last time their predecessor was seen."""
    last_follower: dict[int, int] = {}
    hits = 0
    for before, after in pairwise(tokens):
        hits += last_follower.get(before) == after
        last_follower[before] = after
    return hits / (len(tokens) - 1)


def test_a_look_up_is_now_right_now_wrong(load: Loader) -> None:
    shares = [
        looked_up(load(TinySpec(architecture=architecture, seed=seed)).generate(96, greedy)[0])
        for architecture in ("llama", "qwen2", "gemma3")
        for seed in range(3)
    ]
    assert 0.1 < np.mean(shares) < 0.6
    assert max(shares) < 0.8


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "gemma3", "lfm2"])
def test_a_repetitive_model_can_mostly_be_looked_up(
    load: Loader, architecture: Architecture, tied: bool
) -> None:
    spec = TinySpec(architecture=architecture, repetitive=True, tied=tied)
    tokens, _ = load(spec).generate(96, greedy)
    assert looked_up(tokens) > 0.5
    assert len(set(tokens)) >= 8


@pytest.mark.parametrize(
    ("architecture", "recurrent", "hybrid"),
    [("llama", False, False), ("mamba", True, False), ("lfm2", False, True)],
)
def test_only_attention_can_be_taken_back(
    load: Loader, architecture: Architecture, recurrent: bool, hybrid: bool
) -> None:
    model = load(TinySpec(architecture=architecture))
    model.generate(4, greedy)
    assert native.llama_model_is_recurrent(model.model) is recurrent
    assert native.llama_model_is_hybrid(model.model) is hybrid
    memory = native.llama_get_memory(model.context)
    can_take_back = native.llama_memory_seq_rm(memory, 0, model.num_cached - 2, -1)
    assert can_take_back is not (recurrent or hybrid)


def test_the_sliding_window_is_in_force(load: Loader) -> None:
    narrow = load(TinySpec(architecture="gemma3", sliding_window=16))
    wide = load(TinySpec(architecture="gemma3", sliding_window=0))
    assert native.llama_model_n_swa(narrow.model) == 16
    assert native.llama_model_n_swa(wide.model) == 0
    prompt = narrow.tokenize("the river runs past")
    assert len(prompt) < 16
    np.testing.assert_allclose(narrow.decode(prompt), wide.decode(prompt), atol=1e-4)
    longer = narrow.tokenize(" the old mill and the children run along the river to the bridge")
    assert np.abs(narrow.decode(longer) - wide.decode(longer)).max() > 0.1


QUANTIZATION_NOISE: dict[Quantization, float] = {
    "F16": 0.02,
    "BF16": 0.1,
    "Q8_0": 0.2,
    "Q6_K": 0.5,
    "Q5_1": 0.8,
    "Q5_0": 1.0,
    "Q4_K": 1.6,
    "Q4_1": 1.6,
    "Q4_0": 1.6,
}
"""Root mean square by which logits (deviation about 4) may differ from those of float32 weights."""


@pytest.mark.parametrize("quantization", QUANTIZATION_NOISE)
def test_llama_cpp_reads_every_number_format(load: Loader, quantization: Quantization) -> None:
    exact = load(TinySpec(quantization="F32"))
    model = load(TinySpec(quantization=quantization))
    tokens = exact.tokenize(PROMPT)
    difference = model.decode(tokens) - exact.decode(tokens)
    rms = float(np.sqrt(np.mean(difference**2)))
    assert 0 < rms < QUANTIZATION_NOISE[quantization]


def test_extra_buffers_take_the_weights_and_change_little(tmp_path: Path) -> None:
    for path in write_check_models(tmp_path):
        fast, plain = RawModel(path), RawModel(path, use_extra_bufts=False)
        assert not _extra_buffers(plain.log)
        if path.stem != "1":  # Q8_0 has a fast kernel on some CPUs only
            assert _extra_buffers(fast.log)
        tokens = list(range(1, 400, 10))
        logits = plain.decode(tokens)
        assert 2 < logits.std() < 8
        assert np.abs(fast.decode(tokens) - logits).max() < 0.5
        fast.close()
        plain.close()


def _extra_buffers(log: str) -> list[str]:
    """Lines of the load log about weights in a buffer that repacks them."""
    names = ("CPU_REPACK", "AMX", "CPU_KLEIDIAI", "CPU_AARCH64")
    return [line for line in log.splitlines() if any(f"{name} model" in line for name in names)]
