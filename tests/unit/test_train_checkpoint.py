"""Checkpoints and LoRA files are read as they were written, or refused in one line."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter
from hypothesis import given
from hypothesis import strategies as st
from rigs import file_size_limit
from train_support import ABOUT, BigramPupil, random_lora

from edgespec.errors import StorageError
from edgespec.learning import lora as lora_module
from edgespec.learning.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from edgespec.learning.lora import About, Lora, LowRank, read_about, read_lora, write_lora
from edgespec.learning.training import Judged, Progress, TuningOptions

LORA = random_lora({"blk.0.attn_q.weight": (8, 6), "blk.1.ffn_up.weight": (12, 6)})
PROGRESS = Progress(30, 95, 2, 0.75, Judged(100, 50, 1.5), Judged(100, 60, 1.25), LORA)


def checkpoint(progress: Progress = PROGRESS) -> Checkpoint:
    state = BigramPupil(9).state()
    return Checkpoint(
        "1" * 32, "2" * 32, "big", "small", TuningOptions(rank=3), progress, state, "guide"
    )


def same(one: Lora | None, other: Lora | None) -> bool:
    if one is None or other is None:
        return one is other
    return (
        one.alpha == other.alpha
        and one.changes.keys() == other.changes.keys()
        and all(np.array_equal(one.delta(name), other.delta(name)) for name in one.changes)
    )


@pytest.mark.parametrize("progress", [PROGRESS, Progress()])
def test_a_checkpoint_is_read_as_it_was_written(tmp_path: Path, progress: Progress) -> None:
    path, kept = tmp_path / "pair.training", checkpoint(progress)
    write_checkpoint(kept, path)
    found = read_checkpoint(path)
    assert (found.target, found.drafter, found.target_name) == ("1" * 32, "2" * 32, "big")
    assert (found.drafter_name, found.options) == ("small", kept.options)
    assert found.guide == "guide"
    assert dataclasses.replace(found.progress, best_lora=None) == dataclasses.replace(
        progress, best_lora=None
    )
    assert same(found.progress.best_lora, progress.best_lora)
    assert found.state.keys() == kept.state.keys()
    assert all(np.array_equal(found.state[name], kept.state[name]) for name in kept.state)


def test_a_checkpoint_of_no_numbers_is_refused(tmp_path: Path) -> None:
    state = {**BigramPupil(9).state(), "odd": np.array([np.nan], np.float32)}
    write_checkpoint(dataclasses.replace(checkpoint(), state=state), tmp_path / "file")
    with pytest.raises(StorageError, match="no number"):
        read_checkpoint(tmp_path / "file")


def test_a_checkpoint_of_other_options_is_refused(tmp_path: Path) -> None:
    write_checkpoint(checkpoint(), tmp_path / "file")
    text = (tmp_path / "file").read_bytes()
    (tmp_path / "file").write_bytes(text.replace(b'"rank"', b'"tank"', 1))
    with pytest.raises(StorageError, match="without --resume"):
        read_checkpoint(tmp_path / "file")


def test_a_change_adds_what_its_factors_say() -> None:
    up, down = np.array([[1.0], [2.0]], np.float32), np.array([[3.0, 0.0, -1.0]], np.float32)
    lora = Lora(4.0, {"w": LowRank(down, up)})
    assert lora.delta("w").tolist() == [[12.0, 0.0, -4.0], [24.0, 0.0, -8.0]]


def test_a_lora_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "pair.lora.gguf"
    write_lora(LORA, ABOUT, "llama", path)
    found, about = read_lora(path)
    assert about == read_about(path) == ABOUT
    assert same(found, LORA)


def test_a_lora_of_an_earlier_edgespec_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def earlier(about: About) -> dict[str, object]:
        return {k: v for k, v in dataclasses.asdict(about).items() if k != "by_itself"}

    monkeypatch.setattr(lora_module, "asdict", earlier)
    path = tmp_path / "pair.lora.gguf"
    write_lora(LORA, dataclasses.replace(ABOUT, by_itself=True), "llama", path)
    assert read_about(path) == ABOUT


def test_a_lora_file_is_what_llama_cpp_expects(tmp_path: Path) -> None:
    path = tmp_path / "pair.lora.gguf"
    write_lora(LORA, ABOUT, "llama", path)
    reader = GGUFReader(path)
    keys = ("general.architecture", "general.type", "adapter.type")
    assert [reader.fields[key].contents() for key in keys] == ["llama", "adapter", "lora"]
    assert reader.fields["adapter.lora.alpha"].contents() == LORA.alpha
    shapes = {tensor.name: tensor.shape.tolist() for tensor in reader.tensors}
    assert shapes["blk.1.ffn_up.weight.lora_a"] == [6, 4]  # ggml counts from the innermost
    assert shapes["blk.1.ffn_up.weight.lora_b"] == [4, 12]


@given(st.data())
def test_a_lora_file_that_is_cut_off_is_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("lora") / "pair.lora.gguf"
    write_lora(LORA, ABOUT, "llama", path)
    whole = path.read_bytes()
    last = max(t.data_offset + t.n_bytes for t in GGUFReader(path).tensors)
    path.write_bytes(whole[: data.draw(st.integers(0, int(last) - 1))])
    with pytest.raises(StorageError, match=r"learn reset"):
        read_lora(path)


def test_a_lora_that_edgespec_did_not_train_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(StorageError, match="did not train it"):
        read_about(path)


def test_a_lora_that_is_none_is_refused(tmp_path: Path) -> None:
    odd = LowRank(np.full((4, 6), np.inf, np.float32), LORA.changes["blk.0.attn_q.weight"].up)
    unfit = LowRank(np.ones((2, 6), np.float32), np.ones((8, 3), np.float32))
    for name, lora, reason in (
        ("none", Lora(4.0, {}), "no LoRA"),
        ("odd", Lora(4.0, {"blk.0.attn_q.weight": odd}), "right form"),
        ("unfit", Lora(4.0, {"blk.0.attn_q.weight": unfit}), "right form"),
        ("weightless", Lora(0.0, LORA.changes), "no LoRA"),
    ):
        write_lora(lora, ABOUT, "llama", tmp_path / name)
        with pytest.raises(StorageError, match=reason):
            read_lora(tmp_path / name)


def test_a_full_disk_leaves_the_lora_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "pair.lora.gguf"
    write_lora(LORA, ABOUT, "llama", path)
    before = path.read_bytes()
    with file_size_limit(500), pytest.raises(StorageError, match="not enough space"):
        write_lora(LORA, ABOUT, "llama", path)
    assert path.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["pair.lora.gguf"]
