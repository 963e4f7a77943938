"""Files that are no models: each is a ModelFileError of one line that says what to do."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rigs import SMALL, WriteModel

from edgespec.errors import ModelFileError
from edgespec.llama.model import Model

MAGIC = b"GGUF\x03\0\0\0"
NOISE = random.Random(5).randbytes(5000)
BAD: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _good: b"",
    "random": lambda _good: NOISE,
    "random after the magic": lambda _good: MAGIC + NOISE,
    "zeros after the magic": lambda _good: MAGIC + bytes(5000),
    "a newer version": lambda good: b"GGUF\x63" + good[5:],
    "text": lambda _good: b"<!DOCTYPE html>\n<html>\n" * 50,
    "unknown architecture": lambda good: good.replace(b"llama", b"lhama"),
    "architecture of control characters": lambda good: good.replace(b"llama", b"l\n\x1b[2"),
    "half": lambda good: good[: len(good) // 2],
    "all but one byte": lambda good: good[:-1],
    "a tensor missing": lambda good: good.replace(b"blk.1.ffn_up", b"blk.1.ffn_ip"),
    "metadata missing": lambda good: good.replace(b"block_count", b"clock_bount"),
}


def check_refused(path: Path) -> str:
    with pytest.raises(ModelFileError) as caught:
        Model(path)
    message = str(caught.value)
    assert message.isprintable(), "one line, and nothing that a terminal obeys"
    assert str(path) in message
    assert caught.value.remedy
    return message


@pytest.mark.parametrize("make", BAD.values(), ids=BAD)
def test_a_file_that_is_no_model_is_refused(
    tmp_path: Path, write_model: WriteModel, make: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(make(write_model(SMALL).read_bytes()))
    message = check_refused(path)
    assert "no reason given" not in message


def test_the_unknown_architecture_is_named(tmp_path: Path, write_model: WriteModel) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(write_model(SMALL).read_bytes().replace(b"llama", b"lhama"))
    assert "unknown model architecture: 'lhama'" in check_refused(path)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_anywhere_is_refused(
    tmp_path: Path, write_model: WriteModel, share: float
) -> None:
    good = write_model(SMALL).read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(good[: int(share * len(good))])
    check_refused(path)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 20_000), damage=st.binary(min_size=1, max_size=16))
def test_damaged_metadata_is_refused_or_harmless(
    tmp_path: Path, write_model: WriteModel, place: int, damage: bytes
) -> None:
    good = write_model(SMALL).read_bytes()
    path = tmp_path / "damaged.gguf"
    path.write_bytes(good[:place] + damage + good[place + len(damage) :])
    try:
        Model(path).close()
    except ModelFileError as error:
        assert str(error).isprintable()


def test_what_is_not_a_file_is_refused(tmp_path: Path) -> None:
    assert "there is no model file" in check_refused(tmp_path)
    assert "there is no model file" in check_refused(tmp_path / "missing.gguf")


def test_any_file_name_will_do(tmp_path: Path, write_model: WriteModel) -> None:
    """Names are bytes to the system: spaces, other scripts, even what is no UTF-8."""
    for name in (b"with space.gguf", "模型 ü.gguf".encode(), b"latin-\xfc.gguf"):
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        try:
            path.write_bytes(write_model(SMALL).read_bytes())
        except OSError:  # a file system that insists on UTF-8
            continue
        with Model(path) as model:
            assert model.vocab.num_tokens == 512
