"""The virtual environment `.venv`: made, filled, tried and stamped.

While it is being changed it holds the file `edgespec-incomplete`; one that is found with it was
left by a run that was killed, and is made anew.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from bootstrap.command import Result, Runner
from bootstrap.errors import BootstrapError
from bootstrap.project import Project
from bootstrap.recipes import NO_AMX_FLAGS, Recipe

BUILD_RECORD = "edgespec-build.json"
"""In the environment's folder (`sys.prefix`): which compiler and flags its llama.cpp has."""

STAMP = "edgespec-setup.json"
INCOMPLETE = "edgespec-incomplete"

_SMOKE_TEST = "import llama_cpp; print(llama_cpp.llama_print_system_info().decode())"


class Environment:
    """The virtual environment in one folder."""

    def __init__(self, folder: Path, runner: Runner, env: Mapping[str, str]) -> None:
        """`env` are the variables that pip runs with."""
        self.folder = folder
        self.python = folder / "bin" / "python"
        self._runner = runner
        self._env = env

    @property
    def pip(self) -> tuple[str, ...]:
        """The command that runs this environment's pip."""
        return (str(self.python), "-m", "pip", "--disable-pip-version-check")

    def satisfies(self, inputs: str, dev: bool) -> bool:
        """True if it was finished for `inputs`, with the development tools if `dev`."""
        stamp = _read_json(self.folder / STAMP)
        whole = self.python.exists() and not (self.folder / INCOMPLETE).exists()
        return whole and stamp.get("inputs") == inputs and (stamp.get("dev") is True or not dev)

    @property
    def has_dev(self) -> bool:
        """True if the development tools were installed."""
        return _read_json(self.folder / STAMP).get("dev") is True

    def begin(self) -> None:
        """Make the environment, or open a sound one for changes; raises BootstrapError."""
        if self.folder.exists() and not (self.folder / "pyvenv.cfg").is_file():
            raise BootstrapError(
                f"{self.folder} is there but is not a Python environment", "move it away"
            )
        if (self.folder / INCOMPLETE).exists() or not self._runs():
            shutil.rmtree(self.folder, ignore_errors=True)
            self._create()
        (self.folder / INCOMPLETE).touch()
        (self.folder / STAMP).unlink(missing_ok=True)

    def _runs(self) -> bool:
        """True if its Python starts and is of the version that runs this."""
        if not self.python.exists():
            return False
        program = "import sys, pip; print(sys.version_info[:2])"
        try:
            result = self._runner.run([self.python, "-I", "-c", program], self._env)
        except OSError:
            return False
        return result.output.strip() == str(sys.version_info[:2])

    def _create(self) -> None:
        missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
        if missing:
            raise BootstrapError(
                f"this Python has no module {missing[0]}",
                "install it (Debian and Ubuntu: apt install python3-venv)",
            )
        self.folder.mkdir()
        (self.folder / INCOMPLETE).touch()
        # From inside another environment this is the Python that it was made from.
        base = getattr(sys, "_base_executable", sys.executable)
        self._runner.require("making .venv", [base, "-m", "venv", self.folder], self._env)

    def install_wheel(self, wheel: Path, record: Mapping[str, object]) -> None:
        """Install llama-cpp-python from `wheel` unless it is in place; raises BootstrapError."""
        if _read_json(self.folder / BUILD_RECORD) == record:
            return
        (self.folder / BUILD_RECORD).unlink(missing_ok=True)
        step = "installing llama.cpp"
        # pip leaves an installed build of the same version alone, whatever it was built with.
        if any(self.folder.glob("lib/python*/site-packages/llama_cpp_python-*")):
            remove = ("uninstall", "-q", "-y", "llama-cpp-python")
            self._runner.require(step, (*self.pip, *remove), self._env)
        install = ("install", "-q", "--no-cache-dir", str(wheel))
        self._runner.require(step, (*self.pip, *install), self._env)
        _write_json(self.folder / BUILD_RECORD, record)

    def try_llama(self, recipe: Recipe) -> str:
        """Load llama.cpp in a child process; an empty text, or what is wrong with it."""
        result = self._runner.run([self.python, "-I", "-c", _SMOKE_TEST], self._env)
        problem = smoke_problem(recipe, result)
        if problem:
            (self.folder / BUILD_RECORD).unlink(missing_ok=True)
        return problem

    def install_project(self, project: Project, dev: bool) -> None:
        """Install EdgeSpec in place with what it needs; raises BootstrapError."""
        requirements = project.dev_requirements if dev else ()
        what = "EdgeSpec and the development tools" if dev else "EdgeSpec"
        command = (*self.pip, "install", "-q", "-e", str(project.root), *requirements)
        self._runner.require(f"installing {what}", command, self._env)

    def leave(self) -> None:
        """Keep the environment as it is, not finished: pip undid what it could not complete."""
        (self.folder / INCOMPLETE).unlink(missing_ok=True)

    def finish(self, inputs: str, dev: bool) -> None:
        """Stamp the environment as whole."""
        _write_json(self.folder / STAMP, {"inputs": inputs, "dev": dev})
        self.leave()


def smoke_problem(recipe: Recipe, result: Result) -> str:
    """What the smoke test of a build by `recipe` found; empty if nothing."""
    if result.status < 0:
        return f"it crashes when loaded (signal {-result.status})"
    if result.status > 0:
        lines = result.output.strip().splitlines()
        return f"it does not load ({lines[-1][:120] if lines else 'no message'})"
    if recipe.flags == NO_AMX_FLAGS and "AMX_INT8 = 1" in result.output:
        return "it has the AMX path that this compiler miscompiles"
    return ""


def _read_json(path: Path) -> dict[str, object]:
    """The object in a file; empty if it is missing or damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _write_json(path: Path, value: Mapping[str, object]) -> None:
    """Write an object so that a reader finds the old file or the new one, never a part."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)
