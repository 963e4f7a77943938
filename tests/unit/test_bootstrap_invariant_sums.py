"""The edits to llama.cpp's kernels, on a text of the same shape."""

from __future__ import annotations

from pathlib import Path

import pytest
from bootstrap.invariant_sums import KERNELS, TILED, UnexpectedSourceError, edit, sum_as_integers

TILED_TEXT = "static bool f(int64_t rows) {\n    return rows >= 8 || forced();\n}\n"


def loop(width: int, rows: int, sums: int = 8) -> str:
    """One loop over super-blocks as the kernels have it; `sums` floating-point sums in it."""
    adds = "\n".join(
        f"                    {name}[{index}] = _mm{width}_fmadd_ps("
        f"_mm{width}_cvtepi32_ps(iacc_{name}_{index}), _mm{width}_mul_ps(a, b), {name}[{index}]);"
        for name in ("acc_rows", "acc_min_rows")
        for index in range(sums // 2)
    )
    return f"""            __m{width} acc_rows[{rows}];
            for (int64_t b = 0; b < nb; b++) {{
                const auto col_scale_f32 = load(b);
                for (int sb = 0; sb < 4; sb++) {{
{adds}
                }}
            }}
            store(acc_rows);
"""


def kernels(*loops: str) -> str:
    other = "void ggml_gemv_q4_K_8x8_q8_K(int n) {\n" + loop(256, 4) + "}\n"
    function = "\nvoid ggml_gemm_q4_K_8x8_q8_K(int n) {\n" + "".join(loops) + "}\n"
    return other + function + "\nvoid ggml_gemm_iq4_nl_8x8_q8_0(int n) {\n" + loop(256, 4) + "}\n"


FOUR_LOOPS = (loop(512, 16), loop(512, 4), loop(256, 16), loop(256, 4))


def test_sums_become_integers_and_are_scaled_once_a_super_block() -> None:
    text = sum_as_integers(kernels(*FOUR_LOOPS))
    function = text[text.index("void ggml_gemm_q4_K") : text.index("void ggml_gemm_iq4")]
    # Each loop: eight integer sums inside, one scaling of each kind after the sub-blocks.
    assert function.count("_add_epi32(") == 4 * 8
    assert function.count("_fmadd_ps(") == 4 * 2
    assert function.count("acc_rows[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(iacc_rows[i])") == 2
    assert function.count("a_ptrs[i / 4][b].d[i % 4]") == 2
    assert function.count("a_ptr[b].d[i]") == 2
    inner_end = function.index("                }\n                for (int i = 0; i < 16; i++)")
    assert function.index("_add_epi32(") < inner_end


def test_other_functions_are_left_alone() -> None:
    before = kernels(*FOUR_LOOPS)
    after = sum_as_integers(before)
    start, end = "void ggml_gemm_q4_K", "void ggml_gemm_iq4"
    assert after[: after.index(start)] == before[: before.index(start)]
    assert after[after.index(end) :] == before[before.index(end) :]


@pytest.mark.parametrize(
    "text",
    [
        "int main() {}",
        kernels(*FOUR_LOOPS[:3]),
        kernels(*FOUR_LOOPS, loop(256, 4)),
        kernels(*FOUR_LOOPS[:3], loop(256, 4, sums=6)),
    ],
    ids=["no such function", "a loop less", "a loop more", "a sum less"],
)
def test_source_of_another_shape_is_refused(text: str) -> None:
    with pytest.raises(UnexpectedSourceError):
        sum_as_integers(text)


def write_tree(root: Path, kernel_text: str, tiled_text: str) -> None:
    for name, text in ((KERNELS, kernel_text), (TILED, tiled_text)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")


def test_a_tree_is_edited_as_a_whole(tmp_path: Path) -> None:
    write_tree(tmp_path, kernels(*FOUR_LOOPS), TILED_TEXT)
    edit(tmp_path)
    assert (tmp_path / KERNELS).read_text() == sum_as_integers(kernels(*FOUR_LOOPS))
    assert "rows >= 33 ||" in (tmp_path / TILED).read_text()


@pytest.mark.parametrize(
    ("kernel_text", "tiled_text"),
    [("int main() {}", TILED_TEXT), (kernels(*FOUR_LOOPS), "return true;")],
    ids=["kernels", "tiled"],
)
def test_an_unexpected_tree_is_not_touched(
    tmp_path: Path, kernel_text: str, tiled_text: str
) -> None:
    write_tree(tmp_path, kernel_text, tiled_text)
    with pytest.raises(UnexpectedSourceError):
        edit(tmp_path)
    assert (tmp_path / KERNELS).read_text() == kernel_text
    assert (tmp_path / TILED).read_text() == tiled_text
    edited_twice = tmp_path / "twice"
    write_tree(edited_twice, kernels(*FOUR_LOOPS), TILED_TEXT)
    edit(edited_twice)
    with pytest.raises(UnexpectedSourceError):
        edit(edited_twice)
