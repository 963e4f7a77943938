"""Every edit to llama.cpp's source; CMake runs this on pip's own unpacked copy (lean.cmake).

Usage: python source_edits.py FOLDER. Each edit is made whole or not at all; what was not
made is told on stderr, and the exit code is then 1.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # found by nobody else: see lean.cmake
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bootstrap import invariant_sums, row_attention, row_kernels
from bootstrap.invariant_sums import UnexpectedSourceError


def edit_all(source: Path) -> list[str]:
    """Make every edit in the llama.cpp tree at `source`; what could not be made, for people."""
    problems = []
    for edit in (invariant_sums.edit, row_kernels.edit, row_attention.edit):
        try:
            edit(source)
        except (UnexpectedSourceError, OSError) as problem:
            problems.append(f"llama.cpp is built as it is: {problem}")
    return problems


if __name__ == "__main__":
    if found := edit_all(Path(sys.argv[1])):
        sys.exit("\n".join(found))
