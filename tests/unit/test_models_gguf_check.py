"""A whole GGUF file is told from every other file."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models_support.files import tiny_gguf

from edgespec.errors import ModelFileError
from edgespec.models.gguf_check import check_gguf, gguf_size
from edgespec.models.records import record_path, write_record

WHOLE = tiny_gguf(num_floats=600, tokens=("a", "bc", "", "é"))
in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], Path]:
    def write_bytes(content: bytes) -> Path:
        path = tmp_path / "model.gguf"
        path.write_bytes(content)
        return path

    return write_bytes


def test_a_whole_file_passes(write: Callable[[bytes], Path]) -> None:
    path = write(WHOLE)
    check_gguf(path)
    assert gguf_size(path) <= len(WHOLE)


@pytest.mark.parametrize("tokens", [("a", "bc", "a"), ("é", "", "", "é"), ("x",) * 40])
def test_a_token_that_is_there_twice_is_told(
    write: Callable[[bytes], Path], tokens: tuple[str, ...]
) -> None:
    """llama.cpp would end the whole process over it."""
    path = write(tiny_gguf(num_floats=600, tokens=tokens))
    with pytest.raises(ModelFileError, match=f"the token '{tokens[0]}' twice"):
        check_gguf(path)


def test_empty_tokens_may_be_many(write: Callable[[bytes], Path]) -> None:
    check_gguf(write(tiny_gguf(num_floats=600, tokens=("", "a", "", ""))))


@pytest.mark.parametrize("kind", ["F32", "F16", "Q4_0", "Q4_K", "Q6_K", "Q8_0", "BF16"])
def test_the_length_agrees_with_the_reference_reader(kind: str, tmp_path: Path) -> None:
    """The gguf package reads the same file with its own code."""
    path = tmp_path / "typed.gguf"
    quant = gguf.GGMLQuantizationType[kind]
    block, block_bytes = gguf.GGML_QUANT_SIZES[quant]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_array("some.strings", ["x", "yz"])
    writer.add_array("some.numbers", [1, 2, 3])
    writer.add_bool("some.truth", True)
    writer.add_custom_alignment(64)
    for index in range(3):
        rows = np.zeros((index + 1, 2 * block_bytes), dtype=np.uint8)
        writer.add_tensor(f"t{index}", rows, raw_shape=rows.shape, raw_dtype=quant)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    reference = gguf.GGUFReader(path)
    ends = [int(tensor.data_offset + tensor.n_bytes) for tensor in reference.tensors]
    assert block > 0
    assert gguf_size(path) == max(ends)


@in_one_folder
@given(st.integers(0, len(WHOLE) - 1))
def test_every_truncation_is_found(write: Callable[[bytes], Path], size: int) -> None:
    path = write(WHOLE)
    required = gguf_size(path)
    path = write(WHOLE[: min(size, required - 1)])
    with pytest.raises(ModelFileError) as caught:
        check_gguf(path)
    assert str(path) in str(caught.value)
    assert caught.value.remedy in {"pull it again", "give a model in GGUF format"}


def test_a_truncated_file_is_told_with_both_sizes(write: Callable[[bytes], Path]) -> None:
    required = gguf_size(write(WHOLE))
    path = write(WHOLE[: required - 7])
    with pytest.raises(ModelFileError) as caught:
        check_gguf(path)
    assert f"it has {required - 7:,} of {required:,} bytes; pull it again" in str(caught.value)
    assert caught.value.exit_code == 3


@in_one_folder
@given(st.integers(0, 400), st.binary(min_size=1, max_size=8))
def test_a_damaged_header_is_an_error_or_harmless_but_never_a_crash(
    write: Callable[[bytes], Path], at: int, noise: bytes
) -> None:
    path = write(WHOLE[:at] + noise + WHOLE[at + len(noise) :])
    try:
        size = gguf_size(path)
    except ModelFileError as error:
        assert "\n" not in str(error)
    else:
        assert size <= path.stat().st_size


@in_one_folder
@given(st.binary(max_size=200))
def test_noise_after_the_magic_is_an_error(write: Callable[[bytes], Path], noise: bytes) -> None:
    path = write(b"GGUF" + struct.pack("<IQQ", 3, 1, 2) + noise)
    with pytest.raises(ModelFileError):
        check_gguf(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"GG", "is not a GGUF file"),
        (b"PK\x03\x04 a zip archive", "is not a GGUF file"),
        (b"<!DOCTYPE html>", "is not a GGUF file"),
        (b"GGUF", "runs past its 4 bytes"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "of version 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "of version 50331648"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 40, 0), "its header tells of"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 40), "its header tells of"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 60), "runs past"),
        (b"GGUF" + struct.pack("<IQQQ1sI", 3, 0, 1, 1, b"k", 99), "a value of type 99"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 8, 1 << 60), "runs past"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 4, 1 << 60), "runs past"),
        (b"GGUF" + struct.pack("<IQQQ1sI", 3, 1, 0, 1, b"t", 77), "of 77 dimensions"),
        (
            b"GGUF" + struct.pack("<IQQQ17sII", 3, 0, 1, 17, b"general.alignment", 4, 0),
            "an alignment of 0",
        ),
    ],
)
def test_foreign_and_damaged_files_are_named_for_what_they_are(
    write: Callable[[bytes], Path], content: bytes, message: str
) -> None:
    with pytest.raises(ModelFileError, match=message):
        check_gguf(write(content))


def test_a_file_without_tensors_needs_no_more_than_its_header(
    write: Callable[[bytes], Path],
) -> None:
    content = b"GGUF" + struct.pack("<IQQ", 3, 0, 0)
    assert gguf_size(write(content)) == len(content)


def test_a_tensor_type_newer_than_the_library_is_not_called_truncated(
    write: Callable[[bytes], Path],
) -> None:
    header = b"GGUF" + struct.pack("<IQQQ1sIQIQ", 3, 1, 0, 1, b"t", 1, 32, 60_000, 0)
    path = write(header.ljust(64 + 32, b"\0"))
    check_gguf(path)


def test_a_missing_file_and_a_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="there is no file"):
        check_gguf(tmp_path / "nothing.gguf")
    with pytest.raises(ModelFileError, match="cannot read"):
        check_gguf(tmp_path)


def test_a_verified_file_is_not_read_again_until_it_changes(
    write: Callable[[bytes], Path],
) -> None:
    """Only size and time are compared: the same size and time with other bytes passes."""
    path = write(WHOLE)
    write_record(path, "0" * 64, "hub")
    stat = path.stat()
    path.write_bytes(b"X" * len(WHOLE))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    check_gguf(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    with pytest.raises(ModelFileError, match="is not a GGUF file"):
        check_gguf(path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"sha256": 1}', '"x"'])
def test_a_spoilt_record_counts_as_none(write: Callable[[bytes], Path], text: str) -> None:
    path = write(b"not a model")
    record_path(path).write_text(text)
    with pytest.raises(ModelFileError, match="is not a GGUF file"):
        check_gguf(path)
