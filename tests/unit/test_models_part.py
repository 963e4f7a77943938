"""An unfinished file: hashed as it grows, kept when it is cut off, honest about a full disk."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgespec.errors import ChecksumError, StorageError
from edgespec.models.disk import (
    free_bytes,
    read_json,
    require_space,
    storage_error,
    sync_folder,
    write_json,
)
from edgespec.models.part import Expected, PartFile, file_sha256

UNKNOWN = Expected(None, None)
in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def ignore(_: int) -> None:
    pass


def expected(content: bytes) -> Expected:
    return Expected(hashlib.sha256(content).hexdigest(), len(content))


@in_one_folder
@given(st.lists(st.binary(max_size=64), max_size=12), st.integers(1, 4))
def test_pieces_over_several_runs_give_the_whole_file(
    tmp_path: Path, pieces: list[bytes], per_run: int
) -> None:
    content = b"".join(pieces)
    path = tmp_path / "x.part"
    path.unlink(missing_ok=True)
    for at in range(0, len(pieces), per_run):
        with PartFile(path, UNKNOWN, ignore) as part:
            for piece in pieces[at : at + per_run]:
                part.write(piece)
    with PartFile(path, expected(content), ignore) as part:
        fetched = part.finish("the test")
    assert fetched.path.read_bytes() == content
    assert fetched.sha256 == hashlib.sha256(content).hexdigest() == file_sha256(path)


@in_one_folder
@given(st.binary(max_size=80), st.data())
def test_cutting_and_appending_is_slicing(
    tmp_path: Path, content: bytes, data: st.DataObject
) -> None:
    size = data.draw(st.integers(0, len(content)))
    path = tmp_path / "x.part"
    path.unlink(missing_ok=True)
    with PartFile(path, UNKNOWN, ignore) as part:
        part.write(content)
        part.cut(size)
        assert part.size == size
        part.write(b"end")
        fetched = part.finish("the test")
    assert path.read_bytes() == content[:size] + b"end"
    assert fetched.sha256 == hashlib.sha256(content[:size] + b"end").hexdigest()


def test_sizes_are_told_as_they_change(tmp_path: Path) -> None:
    sizes: list[int] = []
    path = tmp_path / "x.part"
    path.write_bytes(b"12345")
    with PartFile(path, UNKNOWN, sizes.append) as part:
        part.write(b"67")
        part.cut(3)
    assert sizes == [5, 7, 3]


def test_bytes_stay_when_the_block_is_interrupted(tmp_path: Path) -> None:
    path = tmp_path / "x.part"
    with pytest.raises(KeyboardInterrupt), PartFile(path, UNKNOWN, ignore) as part:
        part.write(b"so far")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"so far"


@pytest.mark.parametrize(
    ("sent", "found"),
    [
        (b"12345678", "8 bytes instead of 9"),
        (b"1234567890", "10 bytes instead of 9"),
        (b"123456780", "SHA-256 [0-9a-f]{64} instead of"),
    ],
)
def test_a_wrong_file_is_deleted(tmp_path: Path, sent: bytes, found: str) -> None:
    path = tmp_path / "x.part"
    with (
        pytest.raises(ChecksumError, match=f"the test sent a wrong file: {found}") as caught,
        PartFile(path, expected(b"123456789"), ignore) as part,
    ):
        part.write(sent)
        part.finish("the test")
    assert not path.exists()
    assert caught.value.exit_code == 8


@pytest.fixture
def small_files() -> Iterator[int]:
    """The system lets no file grow beyond this many bytes: a disk that fills, as far as one can."""
    limit = 1 << 16
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_that_cannot_grow_is_told_with_the_bytes_needed(
    tmp_path: Path, small_files: int
) -> None:
    path = tmp_path / "x.part"
    total = 4 * small_files
    with (
        pytest.raises(StorageError, match=r"not enough space in .* \(file size limit\)") as caught,
        PartFile(path, Expected(None, total), ignore) as part,
    ):
        for _ in range(8):
            part.write(b"x" * (total // 8))
    assert str(tmp_path) in str(caught.value)
    assert "bytes are needed" in str(caught.value)
    assert caught.value.exit_code == 9
    assert path.stat().st_size <= small_files


def test_what_the_disk_took_is_gone_on_from(tmp_path: Path) -> None:
    content = os.urandom(1 << 17)
    path = tmp_path / "x.part"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with pytest.raises(StorageError), PartFile(path, expected(content), ignore) as part:
            part.write(content)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with PartFile(path, expected(content), ignore) as part:
        assert 0 < part.size <= 1 << 16
        part.write(content[part.size :])
        part.finish("the test")
    assert path.read_bytes() == content


def test_a_journal_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, small_files: int
) -> None:
    path = tmp_path / "j.json"
    write_json(path, {"sizes": [1]})
    with pytest.raises(StorageError, match="not enough space"):
        write_json(path, {"sizes": "9" * 2 * small_files})
    assert read_json(path) == {"sizes": [1]}
    assert [file.name for file in tmp_path.iterdir()] == ["j.json"]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, "not enough space in .*: 1,234 bytes are needed"),
        (errno.EDQUOT, "not enough space in"),
        (errno.EFBIG, "file size limit"),
        (errno.EROFS, "cannot write in .*: Read-only file system"),
        (errno.EACCES, "cannot write in .*: Permission denied; make it writable"),
    ],
)
def test_each_failure_of_a_disk_is_said_in_words(tmp_path: Path, code: int, message: str) -> None:
    error = storage_error(tmp_path, OSError(code, os.strerror(code)), 1234)
    with pytest.raises(StorageError, match=message):
        raise error
    assert "\n" not in str(error)


def test_a_folder_that_is_a_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "x.part"
    with pytest.raises(StorageError, match="cannot write in"), PartFile(path, UNKNOWN, ignore):
        pass


def test_space_is_required_before_it_is_missed(tmp_path: Path) -> None:
    require_space(tmp_path, 1)
    with pytest.raises(StorageError, match=r"bytes are needed, [\d,]+ are free"):
        require_space(tmp_path, 1 << 60)
    assert free_bytes(tmp_path / "nothing") == 0


@in_one_folder
@given(
    st.dictionaries(
        st.text(max_size=8), st.one_of(st.integers(), st.text(max_size=8), st.booleans())
    )
)
def test_json_survives_the_round_trip(tmp_path: Path, value: dict[str, object]) -> None:
    path = tmp_path / "x.json"
    write_json(path, value)
    sync_folder(tmp_path)
    assert read_json(path) == value == json.loads(path.read_text())


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff\xfe", b"null"])
def test_spoilt_json_reads_as_empty(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    assert read_json(path) == {}
    assert read_json(tmp_path / "nothing.json") == {}
