"""Give llama.cpp a kernel for a few rows at a time (edgespec_rows.h), where the processor has VNNI.

A draft of seven tokens makes a pass over eight rows. ggml's x86 kernels for Q4_K and Q6_K take
nearly four times as long for it as for one row; the kernel that comes with EdgeSpec takes twice as
long, and adds every row up in the same order whatever comes with it (docs/decisions/0008).

The edits to `repack.cpp` are few: include the kernel, call it for its types, quantize rows one by
one and cut columns by eight for it, and repack Q6_K and Q8_0 as well. Source that does not look as
expected is left alone: it is slower, nothing else.
"""

from __future__ import annotations

from pathlib import Path

from bootstrap.invariant_sums import UnexpectedSourceError

HEADER = Path(__file__).with_name("edgespec_rows.h")
REPACK = Path("ggml/src/ggml-cpu/repack.cpp")

_INCLUDE = '#include "repack.h"\n'
_TRAITS = "class tensor_traits_base : public ggml::cpu::tensor_traits {\n"
_ONE_CHUNK = (
    "        // If there are more than three rows in src1, use gemm; otherwise, use gemv.\n"
    "        if (nrows > 3) {\n"
)
_PLANES = (
    "        for (int64_t i12 = 0; i12 < ne12; i12++) {\n"
    "            char * data_ptr  = (char *) src1->data + i12 * nb12;\n"
)
_GROUPED = "i11 < ne11 - ne11 % 4; i11 += nth * 4"
_UNGROUPED = "const int64_t i11_processed = ne11 - ne11 % 4;\n"
_LEAST_CHUNK = "        const int64_t min_chunk_size = NB_COLS;\n"
_START = (
    "src0_start = (src0_start % NB_COLS) ? "
    "src0_start + NB_COLS - (src0_start % NB_COLS) : src0_start;"
)
_END = "src0_end   = (src0_end % NB_COLS) ? src0_end + NB_COLS - (src0_end % NB_COLS) : src0_end;"
_GEMV = "    ggml_gemv_q6_K_8x8_q8_K(n, s, bs, vx, vy, nr, nc);\n"
_Q8_0 = "    } else if (cur->type == GGML_TYPE_Q8_0) {\n"
_Q6_K = "    } else if (cur->type == GGML_TYPE_Q6_K) {\n"

_KERNEL_OF = """#ifdef EDGESPEC_ROWS
template <typename BLOC_TYPE, int64_t INTER_SIZE, int64_t NB_COLS> struct edgespec_kernel {
    using type = void;
};
template <> struct edgespec_kernel<block_q4_K, 8, 8> { using type = edgespec::q4_K; };
template <> struct edgespec_kernel<block_q6_K, 8, 8> { using type = edgespec::q6_K; };
template <> struct edgespec_kernel<block_q4_0, 8, 8> { using type = edgespec::q4_0; };
template <> struct edgespec_kernel<block_q8_0, 8, 4> { using type = edgespec::q8_0; };
#endif

"""
_CALL = """#ifdef EDGESPEC_ROWS
        using kernel = typename edgespec_kernel<BLOC_TYPE, INTER_SIZE, NB_COLS>::type;
        if constexpr (!std::is_same_v<kernel, void>) {
            edgespec::multiply<kernel>(ne00, (float *) dst_ptr + src0_start, nb1 / nb0,
                                       src0_ptr + src0_start * nb01, src1_ptr, nrows, ncols);
            return;
        }
#endif
"""
_ALL_UNGROUPED = """#ifdef EDGESPEC_ROWS
        using kernel = typename edgespec_kernel<BLOC_TYPE, INTER_SIZE, NB_COLS>::type;
        const int64_t num_ungrouped = std::is_same_v<kernel, void> ? ne11 % 4 : ne11;
        const int64_t num_aligned = std::is_same_v<kernel, void> ? NB_COLS : 8;
#else
        const int64_t num_ungrouped = ne11 % 4;
        const int64_t num_aligned = NB_COLS;
#endif
"""
_GEMV_BY_KERNEL = f"""#ifdef EDGESPEC_ROWS
    edgespec::multiply<edgespec::q6_K>(n, s, bs, vx, vy, nr, nc);
#else
{_GEMV}#endif
"""
_REPACK_Q8_0 = """#ifdef EDGESPEC_ROWS
        if (cur->ne[1] % 8 == 0 && cur->ne[2] == 1) {
            return &q8_0_4x8_q8_0;
        }
#endif
"""
_REPACK_Q6_K = """#ifdef EDGESPEC_ROWS
        if (cur->ne[1] % 8 == 0) {
            return &q6_K_8x8_q8_K;
        }
#endif
"""

_EDITS = (
    (_INCLUDE, f'{_INCLUDE}#include "{HEADER.name}"\n'),
    (_TRAITS, _KERNEL_OF + _TRAITS),
    (_ONE_CHUNK, _CALL + _ONE_CHUNK),
    (_PLANES, _ALL_UNGROUPED + _PLANES),
    (_GROUPED, "i11 < ne11 - num_ungrouped; i11 += nth * 4"),
    (_UNGROUPED, "const int64_t i11_processed = ne11 - num_ungrouped;\n"),
    (_LEAST_CHUNK, _LEAST_CHUNK.replace("NB_COLS", "num_aligned")),
    (_START, _START.replace("NB_COLS", "num_aligned")),
    (_END, _END.replace("NB_COLS", "num_aligned")),
    (_GEMV, _GEMV_BY_KERNEL),
    (_Q6_K, _Q6_K + _REPACK_Q6_K),
    (_Q8_0, _Q8_0 + _REPACK_Q8_0),
)


def edit(source: Path) -> None:
    """Edit the llama.cpp tree at `source`; raises UnexpectedSourceError, nothing changed then."""
    text = (source / REPACK).read_text(encoding="utf-8")
    for before, after in _EDITS:
        if text.count(before) != 1:
            line = before.splitlines()[0].strip()
            raise UnexpectedSourceError(f"{REPACK} has {text.count(before)} places like `{line}`")
        text = text.replace(before, after)
    header = (source / REPACK).with_name(HEADER.name)
    header.write_text(HEADER.read_text(encoding="utf-8"), encoding="utf-8")
    (source / REPACK).write_text(text, encoding="utf-8")
