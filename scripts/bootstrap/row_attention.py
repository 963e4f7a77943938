"""Give llama.cpp an attention for keys in BF16 and values in F16 (edgespec_attention.h).

These are the types with which rows together get the bits of rows alone, as ggml's own fast paths,
which say other bits, do not take them. What is left there for them takes every cell of the cache by
itself, which made prompts of 3,500 tokens take twice as long as with F16 (docs/decisions/0028).

Source that does not look as expected is left alone: it is slower, nothing else.
"""

from __future__ import annotations

from pathlib import Path

from bootstrap.invariant_sums import UnexpectedSourceError

HEADER = Path(__file__).with_name("edgespec_attention.h")
OPS = Path("ggml/src/ggml-cpu/ops.cpp")

_INCLUDE = '#include "vec.h"\n'
_CHOICE = (
    "            if (use_tiled) {\n"
    "                ggml_compute_forward_flash_attn_ext_tiled(params, dst, ir0, ir1);\n"
)
_OURS = """#ifdef EDGESPEC_ATTENTION
            if (!use_ref && edgespec::attends(dst)) {
                edgespec::attend(dst, ir0, ir1);
            } else
#endif
"""
_EDITS = ((_INCLUDE, f'{_INCLUDE}#include "{HEADER.name}"\n'), (_CHOICE, _OURS + _CHOICE))


def edit(source: Path) -> None:
    """Edit the llama.cpp tree at `source`; raises UnexpectedSourceError, nothing changed then."""
    text = (source / OPS).read_text(encoding="utf-8")
    for before, after in _EDITS:
        if text.count(before) != 1:
            line = before.splitlines()[0].strip()
            raise UnexpectedSourceError(f"{OPS} has {text.count(before)} places like `{line}`")
        text = text.replace(before, after)
    header = (source / OPS).with_name(HEADER.name)
    header.write_text(HEADER.read_text(encoding="utf-8"), encoding="utf-8")
    (source / OPS).write_text(text, encoding="utf-8")
