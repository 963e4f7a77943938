"""The attention for mixed types is built into llama.cpp's source, or the source is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from bootstrap import row_attention, source_edits
from bootstrap.build import SOURCE_EDITS
from bootstrap.invariant_sums import UnexpectedSourceError
from bootstrap.row_attention import HEADER, OPS, edit

PLACES = (
    '#include "vec.h"\n\nstatic void ggml_compute_forward_flash_attn_ext_f16() {\n'
    + row_attention._CHOICE
    + "            } else {\n            }\n}\n"
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / OPS).parent.mkdir(parents=True)
    (tmp_path / OPS).write_text(PLACES)
    return tmp_path


def test_the_attention_comes_in_and_is_asked_first(source: Path) -> None:
    edit(source)
    text = (source / OPS).read_text()
    assert (source / OPS).with_name(HEADER.name).read_text() == HEADER.read_text()
    ours, theirs = text.index("edgespec::attend(dst"), text.index("if (use_tiled)")
    assert ours < theirs
    assert "} else\n#endif\n            if (use_tiled)" in text


def test_other_source_is_left_alone_and_told(source: Path) -> None:
    changed = PLACES.replace("use_tiled", "use_tiles")
    (source / OPS).write_text(changed)
    with pytest.raises(UnexpectedSourceError, match="has 0 places like `if \\(use_tiled\\)"):
        edit(source)
    assert (source / OPS).read_text() == changed
    assert any("ops.cpp" in problem for problem in source_edits.edit_all(source))


def test_the_wheel_is_built_anew_when_the_attention_changes() -> None:
    assert HEADER in SOURCE_EDITS
    assert Path(row_attention.__file__) in SOURCE_EDITS
