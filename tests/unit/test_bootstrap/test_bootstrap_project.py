"""What is read from pyproject.toml, and when an environment has to be made again."""

from __future__ import annotations

from pathlib import Path

import pytest
from bootstrap.errors import BootstrapError
from bootstrap.project import read_project

PYPROJECT = """
[build-system]
requires = ["setuptools>=77"]
[project]
name = "edgespec"
dependencies = ["numpy>=1.26,<3", "llama-cpp-python==0.3.36"]
[dependency-groups]
dev = ["pytest>=8", "ruff"]
[tool.ruff]
line-length = 100
[tool.setuptools]
packages = ["edgespec"]
"""


def write(tmp_path: Path, text: str) -> Path:
    (tmp_path / "pyproject.toml").write_text(text, encoding="utf-8")
    return tmp_path


def test_pins_are_read(tmp_path: Path) -> None:
    project = read_project(write(tmp_path, PYPROJECT))
    assert project.llama_version == "0.3.36"
    assert project.dev_requirements == ("pytest>=8", "ruff")


def test_the_real_file_pins_llama_cpp_python() -> None:
    project = read_project(Path(__file__).parents[3])
    assert project.llama_version[0].isdigit()
    assert any(requirement.startswith("pytest") for requirement in project.dev_requirements)


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ("line-length = 100", "line-length = 99", False),
        ("[tool.ruff]", "# a comment\n[tool.ruff]", False),
        ("0.3.36", "0.3.37", True),
        ('"ruff"', '"ruff>=1"', True),
        ("setuptools>=77", "setuptools>=78", True),
        ('packages = ["edgespec"]', 'packages = ["edgespec", "edgespec.tui"]', True),
    ],
)
def test_only_what_is_installed_changes_the_digest(
    tmp_path: Path, old: str, new: str, changes: bool
) -> None:
    before = read_project(write(tmp_path, PYPROJECT)).digest
    after = read_project(write(tmp_path, PYPROJECT.replace(old, new))).digest
    assert (before != after) is changes


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (PYPROJECT.replace("==0.3.36", ">=0.3"), "does not pin llama-cpp-python"),
        ("[project]\nname = 'x'", "does not pin llama-cpp-python"),
        ("[project", "cannot read"),
    ],
)
def test_a_file_without_the_pin_is_an_error(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(BootstrapError, match=told):
        read_project(write(tmp_path, text))


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BootstrapError, match="restore it"):
        read_project(tmp_path)
