"""The embedding table: the package's own dequantization, row by row, whatever was asked before."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, quants
from hypothesis import given
from hypothesis import strategies as st
from rigs import SMALL, WriteModel
from tiny_models import TinySpec, write_tiny_model

from edgespec.errors import ModelFileError
from edgespec.gguf import embeddings
from edgespec.gguf.embeddings import EmbeddingTable, HeadTable

QUANTIZATIONS = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q6_K")


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_every_type_is_read(write_model: WriteModel, quantization: str) -> None:
    spec = TinySpec(num_layers=1, head_quantization=quantization)  # type: ignore[arg-type]
    path = write_model(spec)
    tensor = next(t for t in GGUFReader(path).tensors if t.name == "token_embd.weight")
    whole = quants.dequantize(tensor.data, tensor.tensor_type)
    table = EmbeddingTable(path)
    assert (table.num_tokens, table.num_embedding) == (spec.num_vocab, spec.width)
    for tokens in ([5], [0, 511, 5, 5], [5, 7, 0], range(512)):
        rows = table.rows(tokens)
        assert rows.dtype == np.float32
        np.testing.assert_array_equal(rows, whole[list(tokens)])


def test_gemma_s_rows_are_scaled(write_model: WriteModel) -> None:
    gemma = EmbeddingTable(write_model(dataclasses.replace(SMALL, architecture="gemma3")))
    llama = EmbeddingTable(write_model(SMALL))
    factor = np.float32(SMALL.width**0.5)
    np.testing.assert_array_equal(gemma.rows([3, 4]), llama.rows([3, 4]) * factor)


def test_rows_are_the_caller_s_own(write_model: WriteModel) -> None:
    table = EmbeddingTable(write_model(SMALL))
    first = table.rows([9])
    first[:] = 0
    assert table.rows([9]).any()


def test_a_small_cache_gives_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tiny_model(tmp_path_factory.mktemp("table") / "model.gguf", SMALL)
    whole = EmbeddingTable(path).rows(range(SMALL.num_vocab))
    monkeypatch.setattr(embeddings, "_NUM_CACHED", 3)
    table = EmbeddingTable(path)

    @given(st.lists(st.integers(0, 15), max_size=12))
    def check(tokens: list[int]) -> None:
        np.testing.assert_array_equal(table.rows(tokens), whole[tokens])
        assert len(table._cached) <= 3

    check()


@pytest.mark.parametrize("token", [-1, 512, 1 << 40])
def test_ids_outside_the_vocabulary_are_refused(write_model: WriteModel, token: int) -> None:
    with pytest.raises(ValueError, match=f"{token}"):
        EmbeddingTable(write_model(SMALL)).rows([1, token])


def test_a_type_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    writer = GGUFWriter(path, "llama")
    kind = GGMLQuantizationType.Q8_K
    writer.add_tensor("token_embd.weight", np.zeros((4, 292), dtype=np.uint8), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelFileError, match="keeps its embeddings as Q8_K, which cannot be read"):
        EmbeddingTable(path)
    with pytest.raises(ModelFileError, match="keeps its head as Q8_K, which cannot be read"):
        HeadTable(path)
