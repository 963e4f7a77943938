"""Link the four code folders into `build/tree/edgespec`, laid out as the package is imported.

The packages tui, models and cache lie beside edgespec/ and are mapped into it on installation;
type checkers and import linters want one folder to search. Run from the root of the clone.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

MAPPED = ("tui", "models", "cache")


def link_tree(root: Path, tree: Path) -> None:
    """Make `tree` hold one link for each entry of `root`/edgespec and each mapped folder."""
    tree.mkdir(parents=True, exist_ok=True)
    sources = [path for path in (root / "edgespec").iterdir() if path.name != "__pycache__"]
    wanted = {path.name: path for path in [*sources, *(root / name for name in MAPPED)]}
    for link in tree.iterdir():
        if link.name == "__pycache__":  # of whoever imported from here
            shutil.rmtree(link)
        elif link.name not in wanted:
            link.unlink()
    for name, source in wanted.items():
        target = os.path.relpath(source.resolve(), tree.resolve())
        link = tree / name
        if not link.is_symlink() or str(link.readlink()) != target:
            link.unlink(missing_ok=True)
            link.symlink_to(target)


if __name__ == "__main__":
    link_tree(Path.cwd(), Path(sys.argv[1] if len(sys.argv) > 1 else "build/tree/edgespec"))
