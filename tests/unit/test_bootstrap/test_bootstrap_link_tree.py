"""The folder of links that type checkers and import linters search."""

from __future__ import annotations

from pathlib import Path

import pytest
from link_tree import link_tree


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("edgespec/engine", "edgespec/__pycache__", "tui", "models", "cache"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "here.py").write_text(f"# {name}\n", encoding="utf-8")
    (tmp_path / "edgespec" / "__init__.py").touch()
    return tmp_path


def test_every_package_is_found_where_it_is_imported_from(root: Path) -> None:
    tree = root / "build" / "tree" / "edgespec"
    link_tree(root, tree)
    assert {path.name for path in tree.iterdir()} == {
        "__init__.py", "engine", "tui", "models", "cache",
    }  # fmt: skip
    assert (tree / "tui" / "here.py").read_text() == "# tui\n"
    assert (tree / "engine" / "here.py").read_text() == "# edgespec/engine\n"


def test_links_follow_what_comes_and_goes(root: Path) -> None:
    tree = root / "build" / "tree" / "edgespec"
    link_tree(root, tree)
    (root / "edgespec" / "__init__.py").unlink()
    (root / "edgespec" / "types.py").touch()
    (tree / "__pycache__").mkdir()
    (tree / "__pycache__" / "__init__.cpython-311.pyc").touch()
    link_tree(root, tree)
    link_tree(root, tree)
    names = {path.name for path in tree.iterdir()}
    assert "types.py" in names
    assert not {"__init__.py", "__pycache__"} & names


def test_links_move_with_the_clone(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    link_tree(root, root / "build" / "tree" / "edgespec")
    moved = tmp_path_factory.mktemp("elsewhere") / "clone"
    root.rename(moved)
    assert (moved / "build/tree/edgespec/cache/here.py").read_text() == "# cache\n"
