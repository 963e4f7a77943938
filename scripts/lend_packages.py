"""Let the environment that runs this import from a source tree and from another environment.

    .venv-train/bin/python scripts/lend_packages.py build/tree .venv

What is installed in both is taken from the one that runs this.
"""

from __future__ import annotations

import site
import sys
from pathlib import Path


def lend(tree: Path, environment: Path, site_packages: Path) -> Path:
    """Write the .pth file into `site_packages`; returns it."""
    lent = next(environment.glob("lib/python*/site-packages"))
    file = site_packages / "edgespec-lent.pth"
    file.write_text(f"{tree.resolve()}\n{lent.resolve()}\n", encoding="utf-8")
    return file


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    lend(Path(sys.argv[1]), Path(sys.argv[2]), Path(site.getsitepackages()[0]))
