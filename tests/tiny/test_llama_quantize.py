"""Re-typing: bodies in the type asked for, heads and metadata as they were."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, quants
from rigs import SMALL, WriteModel, corpus_tokens, file_size_limit
from tiny_models import TinySpec

from edgespec.errors import ModelFileError, StorageError, UsageError
from edgespec.gguf.quantize import FILE_TYPES, retype
from edgespec.gguf.trim import read_trim_info, write_trimmed
from edgespec.llama.context import Context, ContextOptions
from edgespec.llama.model import Model

KEPT = np.arange(0, 256, dtype=np.int32)
UNTIED = TinySpec(num_layers=1, quantization="Q8_0", head_quantization="Q6_K", tied=False)
OPTIONS = ContextOptions(num_context=64, num_threads=1)


def types_of(path: Path) -> dict[str, str]:
    return {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(path).tensors}


@pytest.mark.parametrize("type_name", FILE_TYPES)
@pytest.mark.parametrize("spec", [UNTIED, dataclasses.replace(UNTIED, tied=True)])
def test_the_body_gets_the_type_and_the_trimmed_head_stays(
    write_model: WriteModel, tmp_path: Path, type_name: str, spec: TinySpec
) -> None:
    trimmed, retyped = tmp_path / "trimmed.gguf", tmp_path / "retyped.gguf"
    write_trimmed(write_model(spec), trimmed, KEPT, "counts")
    retype(trimmed, retyped, type_name)
    before = {tensor.name: tensor for tensor in GGUFReader(trimmed).tensors}
    after = {tensor.name: tensor for tensor in GGUFReader(retyped).tensors}
    assert before.keys() == after.keys()
    for name, tensor in after.items():
        if name in ("token_embd.weight", "output.weight") or len(tensor.shape) == 1:
            assert tensor.tensor_type == before[name].tensor_type
            np.testing.assert_array_equal(tensor.data, before[name].data)
        else:
            assert tensor.tensor_type.name == type_name.upper()
    info = read_trim_info(retyped)
    assert info is not None
    assert info.origin == "counts"
    np.testing.assert_array_equal(info.kept, KEPT)
    with Model(retyped) as model:
        assert model.vocab.num_tokens == len(KEPT)


def test_a_mixed_type_spares_what_loses_most(write_model: WriteModel, tmp_path: Path) -> None:
    source, retyped = write_model(UNTIED), tmp_path / "retyped.gguf"
    retype(source, retyped, "Q4_M")
    types = {name: kind for name, kind in types_of(retyped).items() if name.startswith("blk.")}
    fine = {name for name, kind in types.items() if kind == "Q8_0"}
    assert fine == {"blk.0.attn_v.weight", "blk.0.ffn_down.weight"}
    matrices = {name for name in types if "norm" not in name}
    assert {types[name] for name in matrices - fine} == {"Q4_0"}
    with Model(retyped) as model:
        assert model.vocab.num_tokens == UNTIED.num_vocab


def test_scales_of_q4_0_are_searched(write_model: WriteModel, tmp_path: Path) -> None:
    """The rounding error is less than that of scales taken from the largest value of a block."""
    source, retyped = (
        write_model(dataclasses.replace(UNTIED, quantization="F32")),
        tmp_path / "r.gguf",
    )
    retype(source, retyped, "q4_0")
    whole = {tensor.name: tensor for tensor in GGUFReader(source).tensors}
    for tensor in GGUFReader(retyped).tensors:
        if tensor.name.startswith("blk.") and len(tensor.shape) == 2:
            exact = whole[tensor.name].data
            plain = quants.dequantize(
                quants.quantize(exact, tensor.tensor_type), tensor.tensor_type
            )
            ours = quants.dequantize(tensor.data, tensor.tensor_type)
            assert ((ours - exact) ** 2).sum() < 0.95 * ((plain - exact) ** 2).sum()


def test_a_finer_type_says_nearly_the_same(write_model: WriteModel, tmp_path: Path) -> None:
    source, retyped = write_model(SMALL), tmp_path / "retyped.gguf"
    logits = {}
    for type_name in ("f16", "q8_0", "q4_0"):
        retype(source, retyped, type_name)
        with Model(source) as model, Model(retyped) as other:
            tokens = corpus_tokens(model, 30)
            for name, loaded in (("whole", model), (type_name, other)):
                with Context(loaded, OPTIONS) as context:
                    context.decode(tokens, 0)
                    logits[name] = context.logits(0).copy()
    # SMALL is Q8_0 already: the same type again is the same file's tensors, F16 rounds a little.
    np.testing.assert_array_equal(logits["q8_0"], logits["whole"])
    near = np.abs(logits["f16"] - logits["whole"]).max()
    far = np.abs(logits["q4_0"] - logits["whole"]).max()
    assert near < 0.1 * far


def test_columns_that_do_not_divide_get_the_nearest_type(
    write_model: WriteModel, tmp_path: Path
) -> None:
    retype(write_model(SMALL), tmp_path / "retyped.gguf", "q4_k")
    body = {kind for name, kind in types_of(tmp_path / "retyped.gguf").items() if "attn_q." in name}
    assert body == {"Q5_0"}


def test_an_unknown_type_is_refused(write_model: WriteModel, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no type 'q3_z'; use one of f16, q4_0"):
        retype(write_model(SMALL), tmp_path / "retyped.gguf", "q3_z")
    assert list(tmp_path.iterdir()) == []


def test_what_llama_cpp_refuses_is_told_and_leaves_nothing(
    write_model: WriteModel, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.gguf"
    name = b"general.architecture"
    data = write_model(SMALL).read_bytes()
    broken.write_bytes(data.replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0lambs", 1))
    assert name in data
    with pytest.raises(ModelFileError, match=r"llama.cpp cannot make q4_0 of broken.gguf: .*lambs"):
        retype(broken, tmp_path / "retyped.gguf", "q4_0")
    assert [path.name for path in tmp_path.iterdir()] == ["broken.gguf"]
    assert capfd.readouterr() == ("", "")


def test_a_full_disk_is_told(
    write_model: WriteModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, retyped = write_model(SMALL), tmp_path / "retyped.gguf"
    with file_size_limit(20_000), pytest.raises(StorageError, match="not enough space"):
        retype(source, retyped, "q4_0")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: usage._replace(free=1000))
    with pytest.raises(StorageError, match="not enough space"):
        retype(source, retyped, "q4_0")
    assert list(tmp_path.iterdir()) == []
