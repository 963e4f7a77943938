"""Tiny wheels that stand for llama-cpp-python, a builder of them, and copies of a real venv."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bootstrap.build import WheelBuilder
from bootstrap.cache import WheelCache
from bootstrap.command import Console, Runner
from bootstrap.environment import Environment
from bootstrap.errors import BootstrapError
from bootstrap.machine import Compiler, Machine
from bootstrap.main import Bootstrap
from bootstrap.project import Project
from bootstrap.recipes import Recipe

LLAMA_VERSION = "0.3.36"

SOUND = "def llama_print_system_info(): return b'AVX512 = 1'"
WITH_AMX = "def llama_print_system_info(): return b'AMX_INT8 = 1'"
CRASHES = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
DOES_NOT_LOAD = "raise OSError('libllama.so: cannot open shared object file')"

CLANG_19 = Compiler("clang", (19, 1, 7), "/usr/bin/clang", "/usr/bin/clang++")
GCC_13 = Compiler("gcc", (13, 2, 0), "/usr/bin/gcc", "/usr/bin/g++")
GCC_12 = Compiler("gcc", (12, 2, 0), "/usr/bin/gcc", "/usr/bin/g++", keeps_tile_config=False)


def write_wheel(folder: Path, module: str) -> Path:
    """A real wheel whose one module `llama_cpp` has the text `module`."""
    info = f"llama_cpp_python-{LLAMA_VERSION}.dist-info"
    files = {
        "llama_cpp/__init__.py": module,
        f"{info}/METADATA": (
            f"Metadata-Version: 2.1\nName: llama_cpp_python\nVersion: {LLAMA_VERSION}\n"
        ),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    wheel = folder / f"llama_cpp_python-{LLAMA_VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in files))
    return wheel


class TinyBuilder(WheelBuilder):
    """Builds, by compiler, a wheel with the module it was told, or fails as it was told."""

    def __init__(self, outcomes: Mapping[str, str | BootstrapError]) -> None:
        """`outcomes` says by the compiler's name what its build gives."""
        self._outcomes = outcomes
        self.built: list[str] = []

    def build(self, recipe: Recipe, llama_version: str, workspace: Path) -> Path:
        self.built.append(recipe.compiler)
        outcome = self._outcomes[recipe.compiler]
        if isinstance(outcome, BootstrapError):
            raise outcome
        assert llama_version == LLAMA_VERSION
        return write_wheel(workspace, outcome)


@dataclass(slots=True)
class Bench:
    """A clone with an environment, a cache, and what was said."""

    root: Path
    said: io.StringIO = field(default_factory=io.StringIO)

    @property
    def environment(self) -> Environment:
        runner = Runner(self.root / "log", Console(self.said))
        env = {**os.environ, "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
        return Environment(self.root / ".venv", runner, env)

    @property
    def cache(self) -> WheelCache:
        return WheelCache(self.root / "wheels")

    def bootstrap(self, builder: WheelBuilder, *compilers: Compiler) -> Bootstrap:
        """A bootstrap of this clone on a machine with AMX and `compilers`."""
        flags = frozenset({"amx_tile", "amx_int8"})
        machine = Machine("Linux", "x86_64", "some processor", flags, compilers)
        project = Project(self.root, LLAMA_VERSION, (), "digest")
        return Bootstrap(
            project, machine, self.environment, self.cache, builder, Console(self.said), ()
        )
