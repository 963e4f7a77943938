"""An environment that imports from a source tree, and from another environment what it has not."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

from lend_packages import lend


def test_what_is_lent_can_be_imported(tmp_path: Path) -> None:
    tree, lender, borrower = tmp_path / "tree", tmp_path / "lender", tmp_path / "borrower"
    tree.mkdir()
    (tree / "in_tree.py").write_text("said = 'tree'\n")
    lent = lender / "lib" / "python3.11" / "site-packages"
    lent.mkdir(parents=True)
    (lent / "installed.py").write_text("said = 'lent'\n")
    venv.create(borrower, symlinks=True)
    own = next(borrower.glob("lib/python*/site-packages"))
    file = lend(tree, lender, own)
    assert file.parent == own
    python = borrower / "bin" / Path(sys.executable).name
    if not python.exists():
        python = borrower / "bin" / "python"
    done = subprocess.run(
        [python, "-c", "import in_tree, installed; print(in_tree.said, installed.said)"],
        capture_output=True,
        text=True,
        env={key: value for key, value in os.environ.items() if not key.startswith("PYTHON")},
        check=False,
    )
    assert (done.stdout, done.stderr) == ("tree lent\n", "")
