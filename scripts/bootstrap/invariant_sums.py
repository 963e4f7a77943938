"""Make llama.cpp's kernels for several rows add up in the order of those for one row.

EdgeSpec promises the same bytes with and without speculation, so a row verified together with
others must get the logits, bit for bit, that it gets alone. Two places of ggml's x86 code break it:

- `ggml_gemm_q4_K_8x8_q8_K` (four rows or more) scales and adds a float per pair of sub-blocks,
  while `ggml_gemv_q4_K_8x8_q8_K` (one row) sums a whole super-block of 256 weights as integers
  first. The integers are the same, so summing them first in both makes the floats the same.
- K-quants without a repacked layout use a tiled kernel from 8 rows on and plain dot products below.
  From 33 rows on will do: drafts are shorter, and prompts are longer.

Source that does not look as
expected is left alone: then fewer rows agree, which EdgeSpec measures, and nothing else changes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

KERNELS = Path("ggml/src/ggml-cpu/arch/x86/repack.cpp")
TILED = Path("ggml/src/ggml-cpu/tiled/tiled.cpp")

_FUNCTION = "void ggml_gemm_q4_K_8x8_q8_K("
_NUM_BLOCKS = 4
"""The function's loops: 16 and 4 rows, for AVX-512 and for AVX2."""

_TILED_FROM = "return rows >= 8 ||"
_TILED_INSTEAD = "return rows >= 33 ||"

_ACCUMULATORS = re.compile(r"\s*__m(512|256) acc_rows\[(\d+)\];")
_SUPER_BLOCKS = re.compile(r"(\s*)for \(int64_t b = 0; b < nb; b\+\+\) \{")
_FMADD = re.compile(
    r"(\s*)(acc_rows|acc_min_rows)\[([^\]]+)\]\s*=\s*_mm\d+_fmadd_ps\(_mm\d+_cvtepi32_ps\((\w+)\)"
)


class UnexpectedSourceError(Exception):
    """The source is not the one that these edits were made for."""


@dataclass(slots=True)
class _Loop:
    """The loop over super-blocks that is being read: vector width, rows, indentation."""

    width: str
    rows: int
    indent: str
    num_sums: int = 0


def edit(source: Path) -> None:
    """Edit the llama.cpp tree at `source`; raises UnexpectedSourceError, nothing changed then."""
    kernels = (source / KERNELS).read_text(encoding="utf-8")
    tiled = (source / TILED).read_text(encoding="utf-8")
    if tiled.count(_TILED_FROM) != 1:
        raise UnexpectedSourceError(f"{TILED} has no line `{_TILED_FROM}`")
    edited = sum_as_integers(kernels)
    (source / KERNELS).write_text(edited, encoding="utf-8")
    (source / TILED).write_text(tiled.replace(_TILED_FROM, _TILED_INSTEAD), encoding="utf-8")


def sum_as_integers(kernels: str) -> str:
    """The source text with `ggml_gemm_q4_K_8x8_q8_K` summing super-blocks as integers."""
    start = kernels.find(_FUNCTION)
    end = kernels.find("\nvoid ", start + 1)
    if start < 0 or end < 0:
        raise UnexpectedSourceError(f"{KERNELS} has no {_FUNCTION}")
    lines, num_loops = _edit_function(kernels[start:end].split("\n"))
    if num_loops != _NUM_BLOCKS:
        raise UnexpectedSourceError(f"{_FUNCTION} has {num_loops} loops, not {_NUM_BLOCKS}")
    return kernels[:start] + "\n".join(lines) + kernels[end:]


def _edit_function(lines: list[str]) -> tuple[list[str], int]:
    """The function's lines, edited, and the number of loops over super-blocks among them."""
    edited: list[str] = []
    width, rows, num_loops = "", 0, 0
    loop: _Loop | None = None
    for line in lines:
        if found := _ACCUMULATORS.match(line):
            width, rows = found[1], int(found[2])
        if loop is None and (found := _SUPER_BLOCKS.match(line)):
            loop = _Loop(width, rows, found[1])
            num_loops += 1
            edited += [line, *_declarations(loop)]
        elif loop is not None and (found := _FMADD.match(line)):
            loop.num_sums += 1
            indent, sums, index, term = found.groups()
            edited.append(
                f"{indent}i{sums}[{index}] = _mm{loop.width}_add_epi32(i{sums}[{index}], {term});"
            )
        elif loop is not None and line == loop.indent + "}":
            if loop.num_sums != 8:  # four rows, each with a sum of products and one of minima
                raise UnexpectedSourceError(f"{_FUNCTION} adds {loop.num_sums} sums, not 8")
            edited += [*_scaling(loop), line]
            loop = None
        else:
            edited.append(line)
    return edited, num_loops


def _declarations(loop: _Loop) -> list[str]:
    zero = f"_mm{loop.width}_setzero_si{loop.width}()"
    pad = loop.indent + "    "
    return [
        f"{pad}__m{loop.width}i iacc_rows[{loop.rows}], iacc_min_rows[{loop.rows}];",
        f"{pad}for (int i = 0; i < {loop.rows}; i++) {{",
        f"{pad}    iacc_rows[i] = iacc_min_rows[i] = {zero};",
        f"{pad}}}",
    ]


def _scaling(loop: _Loop) -> list[str]:
    scale = "a_ptrs[i / 4][b].d[i % 4]" if loop.rows == 16 else "a_ptr[b].d[i]"
    pad = loop.indent + "    "
    lines = [
        f"{pad}for (int i = 0; i < {loop.rows}; i++) {{",
        f"{pad}    const __m{loop.width} row_scale = _mm{loop.width}_set1_ps({scale});",
    ]
    for sums, column in (("acc_rows", "col_scale_f32"), ("acc_min_rows", "col_dmin_f32")):
        term = f"_mm{loop.width}_cvtepi32_ps(i{sums}[i])"
        factor = f"_mm{loop.width}_mul_ps({column}, row_scale)"
        lines.append(f"{pad}    {sums}[i] = _mm{loop.width}_fmadd_ps({term}, {factor}, {sums}[i]);")
    return [*lines, f"{pad}}}"]
