"""Goldens: what a screen shows, a text file each; `--snapshot-update` writes them anew."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

import pytest

Golden = Callable[[str, str], None]
"""Holds a text against the golden with that name."""


def golden_in(folder: Path, config: pytest.Config) -> Golden:
    """Goldens are the `NAME.txt` in `folder`."""

    def compare(name: str, text: str) -> None:
        path = folder / f"{name}.txt"
        if config.getoption("update_snapshots"):
            folder.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        golden = path.read_text(encoding="utf-8") if path.exists() else ""
        if text != golden:
            lines = golden.splitlines(), text.splitlines()
            changes = difflib.unified_diff(*lines, "golden", "shown", lineterm="")
            pytest.fail("\n".join((f"not as in {path.name}:", *changes)), pytrace=False)

    return compare
