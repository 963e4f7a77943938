"""The kernel for a few rows is built into llama.cpp's source, or the source is left alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from bootstrap import row_kernels, source_edits
from bootstrap.invariant_sums import UnexpectedSourceError
from bootstrap.row_kernels import HEADER, REPACK, edit
from bootstrap.source_edits import edit_all

# The places of repack.cpp that are edited, in their order, with something between.
PLACES = (
    """#include "repack.h"

template <> void gemv<block_q6_K, 8, 8, GGML_TYPE_Q8_K>(int n) {
    ggml_gemv_q6_K_8x8_q8_K(n, s, bs, vx, vy, nr, nc);
}
class tensor_traits_base : public ggml::cpu::tensor_traits {
};
    void forward_mul_mat_one_chunk() {
        // If there are more than three rows in src1, use gemm; otherwise, use gemv.
        if (nrows > 3) {
        }
    }
        for (int64_t i12 = 0; i12 < ne12; i12++) {
            char * data_ptr  = (char *) src1->data + i12 * nb12;
            for (int64_t i11 = ith * 4; i11 < ne11 - ne11 % 4; i11 += nth * 4) {
            }
            const int64_t i11_processed = ne11 - ne11 % 4;
        }
        const int64_t min_chunk_size = NB_COLS;
"""
    f"        {row_kernels._START}\n        {row_kernels._END}\n"
    """    } else if (cur->type == GGML_TYPE_Q6_K) {
        if (ggml_cpu_has_neon()) {
        }
    } else if (cur->type == GGML_TYPE_Q8_0) {
    }
"""
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / REPACK).parent.mkdir(parents=True)
    (tmp_path / REPACK).write_text(PLACES)
    return tmp_path


def test_the_kernel_comes_in_and_is_called_where_it_was_built(source: Path) -> None:
    edit(source)
    text = (source / REPACK).read_text()
    assert f'#include "repack.h"\n#include "{HEADER.name}"\n' in text
    assert (source / REPACK).with_name(HEADER.name).read_text() == HEADER.read_text()
    # Everything but the include depends on the processor.
    assert text.count("#ifdef EDGESPEC_ROWS") == text.count("#endif") == 6
    assert text.count("edgespec::multiply<") == 2


def test_what_is_left_without_the_kernel_is_the_source_as_it_was(source: Path) -> None:
    edit(source)
    lines, kept, skipping = (source / REPACK).read_text().splitlines(), [], False
    for line in lines:  # what a compiler sees where EDGESPEC_ROWS is not defined
        if line in ("#ifdef EDGESPEC_ROWS", "#else", "#endif"):
            skipping = line == "#ifdef EDGESPEC_ROWS"
        elif not skipping:
            kept.append(line)
    plain = "\n".join(kept).replace(f'#include "{HEADER.name}"\n', "")
    plain = plain.replace("        const int64_t num_ungrouped = ne11 % 4;\n", "")
    plain = plain.replace("num_ungrouped", "ne11 % 4")
    plain = plain.replace("        const int64_t num_aligned = NB_COLS;\n", "")
    plain = plain.replace("num_aligned", "NB_COLS")
    assert [line for line in plain.splitlines() if line] == [
        line for line in PLACES.splitlines() if line
    ]


@pytest.mark.parametrize("place", [before for before, _ in row_kernels._EDITS])
def test_source_of_another_shape_is_left_alone(source: Path, place: str) -> None:
    other = PLACES.replace(place, "// moved\n")
    (source / REPACK).write_text(other)
    with pytest.raises(UnexpectedSourceError, match="0 places"):
        edit(source)
    assert (source / REPACK).read_text() == other
    assert not (source / REPACK).with_name(HEADER.name).exists()


def test_a_place_that_is_there_twice_is_not_guessed_at(source: Path) -> None:
    (source / REPACK).write_text(PLACES + PLACES)
    with pytest.raises(UnexpectedSourceError, match="2 places"):
        edit(source)


def test_edits_do_not_wait_for_each_other(source: Path) -> None:
    """Sums and attention cannot be edited in this tree; the kernel comes in all the same."""
    problems = edit_all(source)
    assert len(problems) == 2
    assert all(each.startswith("llama.cpp is built as it is: ") for each in problems)
    assert "edgespec::multiply<" in (source / REPACK).read_text()


def test_the_edits_run_beside_whatever_pip_isolates_a_build_with(
    source: Path, tmp_path: Path
) -> None:
    """pip hides the standard library from programs that follow PYTHONPATH in a build."""
    hostile = tmp_path / "hostile"
    hostile.mkdir()
    (hostile / "sitecustomize.py").write_text("import sys; sys.path.clear()\n")
    script = Path(source_edits.__file__)
    command = [sys.executable, "-I", str(script), str(source)]
    assert "COMMAND ${EDGESPEC_PYTHON} -I ${CMAKE_CURRENT_LIST_DIR}/source_edits.py" in (
        script.with_name("lean.cmake").read_text()
    )
    environment = {**os.environ, "PYTHONPATH": str(hostile)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1, "sums and attention cannot be edited in this tree"
    assert done.stderr.startswith("llama.cpp is built as it is: ")
    assert done.stderr.count("\n") == 2
    assert "edgespec::multiply<" in (source / REPACK).read_text()
