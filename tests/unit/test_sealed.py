"""Files of arrays are read as they were written, or refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rigs import file_size_limit

from edgespec.errors import StorageError
from edgespec.files.sealed import read_sealed, write_sealed

MAGIC = b"edgespec test 1\n"
ARRAYS: dict[str, np.ndarray[Any, Any]] = {
    "one": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a/b.c": np.array([1], np.int8),
}
MOST = 1 << 20


def written(folder: Path) -> Path:
    write_sealed(folder / "file", MAGIC, {"name": "a \n line", "count": 3}, ARRAYS)
    return folder / "file"


def test_what_was_written_is_read(tmp_path: Path) -> None:
    about, arrays = read_sealed(written(tmp_path), MAGIC, MOST, "delete it")
    assert (about["name"], about["count"]) == ("a \n line", 3)
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        assert np.array_equal(arrays[name], array)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@given(st.data())
def test_a_file_that_is_cut_off_or_changed_is_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = written(tmp_path_factory.mktemp("sealed"))
    whole = path.read_bytes()
    if data.draw(st.booleans(), label="cut off"):
        path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    else:
        place = data.draw(st.integers(len(MAGIC), len(whole) - 1))
        changed = bytes([whole[place] ^ data.draw(st.integers(1, 255))])
        path.write_bytes(whole[:place] + changed + whole[place + 1 :])
        if place < whole.index(b"\n", len(MAGIC)):  # what is told is not sealed, only its form is
            return
    with pytest.raises(StorageError, match="delete it"):
        read_sealed(path, MAGIC, MOST, "delete it")


def test_a_foreign_a_missing_and_a_large_file_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    with pytest.raises(StorageError, match="another kind"):
        read_sealed(path, b"edgespec other 1\n", MOST, "delete it")
    with pytest.raises(StorageError, match="cannot read"):
        read_sealed(tmp_path / "none", MAGIC, MOST, "delete it")
    with pytest.raises(StorageError, match="cut off"):
        read_sealed(path, MAGIC, 10, "delete it")


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    path = written(tmp_path)
    before = path.read_bytes()
    with file_size_limit(100), pytest.raises(StorageError, match="cannot write"):
        write_sealed(path, MAGIC, {}, {"large": np.zeros(1000)})
    assert path.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
