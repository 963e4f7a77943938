"""Trimmed heads over real llama.cpp: the whole model's logits at the kept ids, and refusals."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter
from numpy.typing import NDArray
from rigs import SMALL, OpenModel, WriteModel, corpus_tokens, file_size_limit
from tiny_models import TinySpec, write_tiny_model

from edgespec.errors import ModelFileError, StorageError, UsageError
from edgespec.gguf.embeddings import EmbeddingTable
from edgespec.gguf.file import GgufFile
from edgespec.gguf.quantize import retype
from edgespec.gguf.trim import (
    file_sha256,
    forget_own_rows,
    read_trim_info,
    write_other_rows,
    write_trimmed,
)
from edgespec.llama.context import Context, ContextOptions
from edgespec.llama.model import Model

OPTIONS = ContextOptions(num_context=256, num_threads=1)
WIDE = TinySpec(num_layers=1, quantization="Q4_K", head_quantization="Q6_K")
SPECS = {
    "llama tied": SMALL,
    "llama untied": dataclasses.replace(SMALL, tied=False),
    "qwen2 tied": dataclasses.replace(SMALL, architecture="qwen2"),
    "qwen2 untied F16 head": dataclasses.replace(
        SMALL, architecture="qwen2", tied=False, head_quantization="F16"
    ),
    "qwen3 BF16": dataclasses.replace(SMALL, architecture="qwen3", quantization="BF16"),
    "gemma3": dataclasses.replace(SMALL, architecture="gemma3", vocabulary="spm"),
    "gemma3 untied": dataclasses.replace(SMALL, architecture="gemma3", tied=False),
    "llama Q6_K head": WIDE,
    "gemma3 Q4_0 head": dataclasses.replace(WIDE, architecture="gemma3", head_quantization="Q4_0"),
}
KEPT = np.array([*range(3, 259, 2), 300, 510, 511], dtype=np.int32)


def logits_of(model: Model, passes: Sequence[Sequence[int] | NDArray[np.float32]]) -> np.ndarray:
    """Logits of every row of `passes`, one pass after another."""
    rows = []
    with Context(model, OPTIONS) as context:
        position = 0
        for tokens in passes:
            context.decode(tokens, position, num_outputs=len(tokens))
            rows += [context.logits(row).copy() for row in range(len(tokens))]
            position += len(tokens)
    return np.array(rows)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_fed_by_embeddings_it_says_what_the_whole_model_says(
    open_model: OpenModel, write_model: WriteModel, tmp_path: Path, spec: TinySpec
) -> None:
    whole = open_model(spec)
    tokens = corpus_tokens(whole, 40)
    assert not set(tokens) <= set(KEPT.tolist()), "what was not kept is to be read, too"
    info = write_trimmed(whole.path, tmp_path / "trimmed.gguf", KEPT, "a test")
    table = EmbeddingTable(whole.path)
    expected = logits_of(whole, [tokens[:30], *([token] for token in tokens[30:])])
    with Model(tmp_path / "trimmed.gguf") as trimmed:
        assert trimmed.vocab.kind == "none"
        assert trimmed.vocab.num_tokens == len(KEPT)
        passes = [table.rows(tokens[:30]), *(table.rows([token]) for token in tokens[30:])]
        found = logits_of(trimmed, passes)
    scale = np.abs(expected).max()
    assert scale > 1
    np.testing.assert_allclose(found, expected[:, info.kept], atol=1e-5 * scale)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_kept_tokens_can_be_fed_by_their_row(
    open_model: OpenModel, tmp_path: Path, spec: TinySpec
) -> None:
    whole = open_model(spec)
    rows = [1, 60, 60, 2, 128, 130, 7]
    write_trimmed(whole.path, tmp_path / "trimmed.gguf", KEPT, "a test")
    expected = logits_of(whole, [KEPT[rows].tolist()])
    with Model(tmp_path / "trimmed.gguf") as trimmed:
        found = logits_of(trimmed, [rows])
    np.testing.assert_allclose(found, expected[:, KEPT], atol=1e-5 * np.abs(expected).max())


def test_the_file_tells_what_it_is(write_model: WriteModel, tmp_path: Path) -> None:
    source, trimmed = write_model(SMALL), tmp_path / "trimmed.gguf"
    shares: list[float] = []
    shuffled = np.random.default_rng(0).permutation(KEPT)
    written = write_trimmed(source, trimmed, shuffled, "counts of mine", shares.append)
    read = read_trim_info(trimmed)
    assert read is not None
    for info in (written, read):
        np.testing.assert_array_equal(info.kept, KEPT)
        assert info.kept.dtype == np.int32
        assert info.num_kept == len(KEPT)
        assert info.num_parent_tokens == SMALL.num_vocab
        assert info.parent_sha256 == file_sha256(source)
        assert info.origin == "counts of mine"
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert read_trim_info(source) is None


def test_all_but_head_and_tokenizer_is_the_parent_s(
    write_model: WriteModel, tmp_path: Path
) -> None:
    source, trimmed = write_model(SPECS["qwen2 untied F16 head"]), tmp_path / "trimmed.gguf"
    write_trimmed(source, trimmed, KEPT, "")
    before, after = GGUFReader(source), GGUFReader(trimmed)
    for tensor, ours in zip(before.tensors, after.tensors, strict=True):
        assert tensor.name == ours.name
        assert tensor.tensor_type == ours.tensor_type
        sliced = tensor.name in ("token_embd.weight", "output.weight")
        np.testing.assert_array_equal(ours.data, tensor.data[KEPT] if sliced else tensor.data)
    metadata = {name: field.contents() for name, field in after.fields.items()}
    for name, field in before.fields.items():
        if not name.startswith(("tokenizer.", "GGUF.")):
            assert metadata.pop(name) == field.contents()
            assert after.fields[name].types == field.types
    rest = {name for name in metadata if not name.startswith(("GGUF.", "edgespec.trim."))}
    assert rest == {"tokenizer.ggml.model", "qwen2.vocab_size"}


@pytest.mark.parametrize("name", ["llama tied", "qwen2 untied F16 head", "gemma3"])
def test_other_rows_in_a_body_of_other_types(
    write_model: WriteModel, tmp_path: Path, name: str
) -> None:
    source, trimmed, again = write_model(SPECS[name]), tmp_path / "a.gguf", tmp_path / "b.gguf"
    scratch, expected = tmp_path / "c.gguf", tmp_path / "d.gguf"
    write_trimmed(source, scratch, KEPT, "counts")
    retype(scratch, trimmed, "q4_0")
    others = np.arange(100, 100 + len(KEPT), dtype=np.int32)
    shares: list[float] = []
    write_other_rows(source, GgufFile(trimmed), again, others, "mine", shares.append, is_own=True)
    assert shares[-1] == 1.0
    info = read_trim_info(again)
    assert info is not None
    np.testing.assert_array_equal(info.kept, others)
    assert (info.origin, info.is_own) == ("mine", True)
    assert info.parent_sha256 == file_sha256(source)
    assert info.parent_name == source.name
    write_trimmed(source, scratch, others, "mine", is_own=True)
    retype(scratch, expected, "q4_0")
    for ours, theirs in zip(GGUFReader(again).tensors, GGUFReader(expected).tensors, strict=True):
        assert (ours.name, ours.tensor_type) == (theirs.name, theirs.tensor_type)
        np.testing.assert_array_equal(ours.data, theirs.data)
    assert {field.name for field in GgufFile(again).fields()} == {
        field.name for field in GgufFile(expected).fields()
    }
    with Model(again) as model:
        assert model.vocab.num_tokens == len(others)


def test_other_rows_are_as_many_and_of_the_same_parent(
    write_model: WriteModel, tmp_path: Path
) -> None:
    source, trimmed = write_model(SMALL), tmp_path / "trimmed.gguf"
    write_trimmed(source, trimmed, KEPT, "")
    content = trimmed.read_bytes()
    other = write_model(dataclasses.replace(SMALL, num_vocab=384))
    for whole, kept, error, words in (
        (source, KEPT[1:], UsageError, "ids to keep in place of"),
        (source, KEPT + 1, UsageError, "token 512 is not one of"),
        (other, KEPT[KEPT < 384], ModelFileError, "was not trimmed from"),
    ):
        with pytest.raises(error, match=words):
            write_other_rows(whole, GgufFile(trimmed), trimmed, kept, "", is_own=True)
    with pytest.raises(ModelFileError, match="was not trimmed from"):
        write_other_rows(source, GgufFile(source), trimmed, KEPT, "", is_own=True)
    assert trimmed.read_bytes() == content


def test_own_rows_are_forgotten_and_others_are_not(write_model: WriteModel, tmp_path: Path) -> None:
    source = write_model(SMALL)
    own, shipped, broken = (tmp_path / f"{name}.gguf" for name in ("own", "shipped", "broken"))
    write_trimmed(source, own, KEPT, "", is_own=True)
    write_trimmed(source, shipped, KEPT, "")
    broken.write_bytes(b"GGUF and nothing else")
    assert forget_own_rows(sorted(tmp_path.glob("*.gguf"))) == [own]
    assert sorted(tmp_path.iterdir()) == [broken, shipped]
    assert forget_own_rows([tmp_path / "nowhere.gguf"]) == []


def test_metadata_of_every_kind_is_copied(tmp_path: Path) -> None:
    source = tmp_path / "source.gguf"
    values = {
        "a.bool": True,
        "a.float": 0.5,
        "a.text": "äö 中",
        "a.list": ["de", "zh", ""],
        "a.numbers": [1, -2, 3],
        "a.empty": [],
    }
    writer = GGUFWriter(source, "llama")
    writer.add_bool("a.bool", True)
    writer.add_float64("a.float", 0.5)
    writer.add_string("a.text", "äö 中")
    writer.add_array("a.list", ["de", "zh", ""])
    writer.add_array("a.numbers", [1, -2, 3])
    writer.add_custom_alignment(64)
    writer.add_array("tokenizer.ggml.tokens", [f"piece {i}" for i in range(5000)])
    writer.add_tensor("token_embd.weight", np.ones((5000, 3), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    write_trimmed(source, tmp_path / "trimmed.gguf", KEPT, "")
    trimmed = GgufFile(tmp_path / "trimmed.gguf")
    for name, value in values.items():
        assert trimmed.value(name, []) == value
    assert trimmed.value("general.alignment", None) is None
    assert trimmed.tensors["token_embd.weight"].data.shape == (len(KEPT), 3)


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        ([0, 1, 512], "token 512 is not one of the 512"),
        ([-1, 3], "token -1 is not one"),
        ([4, 4], "2 ids to keep, 1 of them different"),
        ([], "0 ids to keep"),
    ],
)
def test_ids_that_are_none_are_refused(
    write_model: WriteModel, tmp_path: Path, kept: list[int], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        write_trimmed(
            write_model(SMALL), tmp_path / "trimmed.gguf", np.array(kept, dtype=np.int32), ""
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("architecture", ["mamba", "lfm2"])
def test_recurrent_models_are_refused(
    write_model: WriteModel, tmp_path: Path, architecture: str
) -> None:
    spec = TinySpec(architecture=architecture, width=64, ffn_width=128)  # type: ignore[arg-type]
    with pytest.raises(ModelFileError, match="is recurrent; it cannot serve as drafter"):
        write_trimmed(write_model(spec), tmp_path / "trimmed.gguf", KEPT, "")


def test_what_is_trimmed_is_not_trimmed_again(write_model: WriteModel, tmp_path: Path) -> None:
    write_trimmed(write_model(SMALL), tmp_path / "trimmed.gguf", KEPT, "")
    with pytest.raises(ModelFileError, match="trimmed already"):
        write_trimmed(tmp_path / "trimmed.gguf", tmp_path / "again.gguf", KEPT[:3], "")


def test_other_tensors_by_token_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "source.gguf"
    write_gguf(source, {"token_embd.weight": (40, 32), "per_layer_token_embd.weight": (40, 8)})
    with pytest.raises(ModelFileError, match=r"keeps per_layer_token_embd.weight by token"):
        write_trimmed(source, tmp_path / "trimmed.gguf", KEPT[:3], "")
    write_gguf(source, {"token_embd.weight": (40, 32), "output.weight": (39, 32)})
    with pytest.raises(ModelFileError, match="head of another shape"):
        write_trimmed(source, tmp_path / "trimmed.gguf", KEPT[:3], "")
    write_gguf(source, {"wte": (40, 32)})
    with pytest.raises(ModelFileError, match=r"has no tensor token_embd.weight"):
        write_trimmed(source, tmp_path / "trimmed.gguf", KEPT[:3], "")
    with pytest.raises(ModelFileError, match=r"has no tensor token_embd.weight"):
        EmbeddingTable(source)


def test_files_that_are_no_models_are_refused(write_model: WriteModel, tmp_path: Path) -> None:
    content = write_model(SMALL).read_bytes()
    for name, data in {
        "empty": b"",
        "text": b"This is no model, only a text of some length." * 100,
        "header": content[:2000],
        "half": content[: len(content) // 2],
        "version": content[:4] + b"\x09" + content[5:],
        "counts": content[:8] + b"\xff" * 16 + content[24:],
    }.items():
        path = tmp_path / name
        path.write_bytes(data)
        for use in (EmbeddingTable, read_trim_info, lambda p: write_trimmed(p, p, KEPT, "")):
            with pytest.raises(ModelFileError) as refused:
                use(path)
            assert str(path) in str(refused.value)
            assert "\n" not in str(refused.value)
    with pytest.raises(ModelFileError, match=r"cannot read .*absent.*No such file"):
        EmbeddingTable(tmp_path / "absent")
    split = tmp_path / "split.gguf"
    writer = GGUFWriter(split, "llama")
    writer.add_uint16("split.count", 3)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelFileError, match="one of several files"):
        read_trim_info(split)


def test_another_version_of_the_format_is_refused(write_model: WriteModel, tmp_path: Path) -> None:
    trimmed = tmp_path / "trimmed.gguf"
    write_trimmed(write_model(SMALL), trimmed, KEPT, "")
    data = trimmed.read_bytes()
    key = b"edgespec.trim.version"
    at = data.index(key) + len(key) + 4
    trimmed.write_bytes(data[:at] + b"\x07" + data[at + 1 :])
    with pytest.raises(ModelFileError, match="trimmed in format 7, this is 1; trim it again"):
        read_trim_info(trimmed)


def test_an_interrupt_leaves_nothing(write_model: WriteModel, tmp_path: Path) -> None:
    def interrupt(share: float) -> None:
        assert share < 1 or list(tmp_path.iterdir())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_trimmed(write_model(SMALL), tmp_path / "trimmed.gguf", KEPT, "", interrupt)
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_stays_until_the_new_file_is_whole(
    write_model: WriteModel, tmp_path: Path
) -> None:
    trimmed = tmp_path / "trimmed.gguf"
    write_trimmed(write_model(SMALL), trimmed, KEPT, "first")

    def fail(_share: float) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_trimmed(write_model(SMALL), trimmed, KEPT, "second", fail)
    info = read_trim_info(trimmed)
    assert info is not None
    assert info.origin == "first"


def test_a_full_disk_is_told(
    write_model: WriteModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_model(SMALL)
    with monkeypatch.context() as patch, pytest.raises(StorageError, match="not enough space"):
        usage = shutil.disk_usage(tmp_path)
        patch.setattr(shutil, "disk_usage", lambda _folder: usage._replace(free=1000))
        write_trimmed(source, tmp_path / "trimmed.gguf", KEPT, "")
    with pytest.raises(StorageError, match=r"cannot write .*No such file"):
        write_trimmed(source, tmp_path / "absent" / "trimmed.gguf", KEPT, "")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_is_told(write_model: WriteModel, tmp_path: Path) -> None:
    source = write_model(SMALL)
    with file_size_limit(20_000), pytest.raises(StorageError, match="not enough space"):
        write_trimmed(source, tmp_path / "trimmed.gguf", KEPT, "")
    assert list(tmp_path.iterdir()) == []


def write_gguf(path: Path, shapes: dict[str, tuple[int, int]]) -> None:
    writer = GGUFWriter(path, "gemma3n")
    for name, shape in shapes.items():
        writer.add_tensor(name, np.ones(shape, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    source = write_tiny_model(tmp_path / "source.gguf", SMALL)
    for name in ("one.gguf", "two.gguf"):
        write_trimmed(source, tmp_path / name, KEPT, "counts")
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "two.gguf").read_bytes()
