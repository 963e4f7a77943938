"""A virtual environment, made once, to copy."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def pristine_venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new virtual environment; not to be changed."""
    folder = tmp_path_factory.mktemp("pristine") / ".venv"
    base = getattr(sys, "_base_executable", sys.executable)
    subprocess.run([base, "-m", "venv", str(folder)], check=True)
    return folder


@pytest.fixture
def clone(tmp_path: Path, pristine_venv: Path) -> Path:
    """A folder with a virtual environment of its own."""
    root = tmp_path / "a clone"
    root.mkdir()
    shutil.copytree(pristine_venv, root / ".venv", symlinks=True)
    return root
