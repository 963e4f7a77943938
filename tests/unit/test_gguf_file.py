"""What a file tells of its weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter

from edgespec.gguf.file import GgufFile

LAYER = {"blk.0.attn_q.weight": 3, "blk.0.ffn_up_exps.weight": 8, "blk.0.ffn_up_shexp.weight": 2}


@pytest.mark.parametrize(
    ("tables", "num_experts", "rows"),
    [
        (("token_embd.weight",), 0, 5 + 13),
        (("token_embd.weight", "output.weight"), 0, 5 + 13),
        (("token_embd.weight", "output.weight"), 4, 5 + 7),
        (("token_embd.weight", "per_layer_token_embd.weight"), 4, 5 + 7),
    ],
    ids=["one table", "a head of its own", "one of four experts", "a table for all layers"],
)
def test_a_pass_reads_no_table_but_the_head_and_no_expert_that_is_not_used(
    tmp_path: Path, tables: tuple[str, ...], num_experts: int, rows: int
) -> None:
    writer = GGUFWriter(tmp_path / "model.gguf", "qwen3moe")
    if num_experts:
        writer.add_expert_count(num_experts)
        writer.add_expert_used_count(1)
    for name, num_rows in {**dict.fromkeys(tables, 5), **LAYER}.items():
        writer.add_tensor(name, np.ones((num_rows, 16), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert GgufFile(tmp_path / "model.gguf").pass_bytes == 64 * rows
