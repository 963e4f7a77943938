"""The models of the self-check reach the fast kernels, and any block of theirs is a fair one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gguf import GGUFReader, dequantize

from edgespec.machine.check_models import write_check_models


def test_the_self_check_reaches_the_fast_kernels(tmp_path: Path) -> None:
    """The conditions of llama.cpp's AMX and repacking code, and weights as wide as wanted."""
    types = set()
    for path in write_check_models(tmp_path):
        matrices = [each for each in GGUFReader(path).tensors if len(each.shape) == 2]
        assert len(matrices) == 1 + 7 * 2
        for each in matrices:
            columns, rows = (int(size) for size in each.shape)
            types.add(each.tensor_type.name)
            assert rows % 32 == 0
            assert columns % (256 if each.tensor_type.name.endswith("_K") else 32) == 0
            weights = dequantize(each.data, each.tensor_type)
            wanted = columns**-0.5 * (1.0 if each.name.startswith("blk.") else 4.0)
            assert abs(np.std(weights) / wanted - 1) < 0.1, each.name
            assert abs(np.mean(weights)) < 0.2 * wanted
    assert types == {"Q4_0", "Q8_0", "Q4_K", "Q6_K"}


def test_they_are_the_same_each_time(tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    first, again = write_check_models(tmp_path), write_check_models(tmp_path / "again")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
