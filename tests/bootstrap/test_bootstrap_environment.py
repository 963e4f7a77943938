"""When an environment is kept, made anew, or refused."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest
from bootstrap.command import Result
from bootstrap.environment import INCOMPLETE, smoke_problem
from bootstrap.errors import BootstrapError
from bootstrap.recipes import NO_AMX_FLAGS, Recipe
from bootstrap_support import Bench


def test_a_finished_environment_satisfies_its_inputs_only(clone: Path) -> None:
    environment = Bench(clone).environment
    assert not environment.satisfies("a", dev=False)
    environment.begin()
    assert not environment.satisfies("a", dev=False)
    environment.finish("a", dev=False)
    assert environment.satisfies("a", dev=False)
    assert not environment.satisfies("b", dev=False)
    assert not environment.satisfies("a", dev=True)
    environment.begin()
    environment.finish("a", dev=True)
    assert environment.satisfies("a", dev=True)
    assert environment.satisfies("a", dev=False)


def test_an_environment_that_was_left_half_made_is_made_anew(clone: Path) -> None:
    environment = Bench(clone).environment
    environment.begin()
    (clone / ".venv" / "half").touch()
    assert (clone / ".venv" / INCOMPLETE).exists()
    environment.begin()
    assert not (clone / ".venv" / "half").exists()
    assert environment.python.exists()


def test_an_environment_whose_python_is_gone_is_made_anew(clone: Path) -> None:
    environment = Bench(clone).environment
    environment.begin()
    environment.finish("a", dev=False)
    environment.python.unlink()
    environment.python.symlink_to("/nowhere/python")
    assert not environment.satisfies("a", dev=False)
    environment.begin()
    assert environment.python.exists()


def test_a_folder_that_is_something_else_is_left_alone(clone: Path) -> None:
    shutil.rmtree(clone / ".venv")
    (clone / ".venv").mkdir()
    (clone / ".venv" / "mine").touch()
    with pytest.raises(BootstrapError, match="not a Python environment; move it away"):
        Bench(clone).environment.begin()
    assert (clone / ".venv" / "mine").exists()


def test_a_damaged_stamp_counts_as_none(clone: Path) -> None:
    environment = Bench(clone).environment
    environment.begin()
    environment.finish("a", dev=True)
    stamp = clone / ".venv" / "edgespec-setup.json"
    for text in ("", "[]", '{"inputs": "a"'):
        stamp.write_text(text, encoding="utf-8")
        assert not environment.satisfies("a", dev=False)
        assert not environment.has_dev


@pytest.mark.parametrize(
    ("status", "output", "problem"),
    [
        (0, "AVX512 = 1", ""),
        (-signal.SIGSEGV, "", f"it crashes when loaded (signal {int(signal.SIGSEGV)})"),
        (-signal.SIGILL, "", f"it crashes when loaded (signal {int(signal.SIGILL)})"),
        (1, "Traceback\nOSError: no lib", "it does not load (OSError: no lib)"),
        (1, "", "it does not load (no message)"),
        (0, "AMX_INT8 = 1", "it has the AMX path that this compiler miscompiles"),
    ],
)
def test_the_smoke_test_is_told_in_words(status: int, output: str, problem: str) -> None:
    recipe = Recipe("gcc", "12.2.0", flags=NO_AMX_FLAGS)
    assert smoke_problem(recipe, Result(status, output)) == problem


def test_the_environment_of_another_python_is_made_anew(clone: Path) -> None:
    environment = Bench(clone).environment
    environment.python.unlink()
    environment.python.write_text("#!/bin/sh\necho '(3, 99)'\n", encoding="utf-8")
    environment.python.chmod(0o755)
    environment.begin()
    assert environment.python.is_symlink()
