"""Building one wheel of llama-cpp-python by a recipe, in a workspace."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from bootstrap.cache import BUILD_VARIABLES
from bootstrap.command import Runner
from bootstrap.errors import BootstrapError, DiskFullError
from bootstrap.recipes import Recipe

LEAN_CMAKE = Path(__file__).with_name("lean.cmake")
SOURCE_EDITS = tuple(
    Path(__file__).with_name(name)
    for name in (
        "source_edits.py",
        "invariant_sums.py",
        "row_kernels.py",
        "edgespec_rows.h",
        "row_attention.py",
        "edgespec_attention.h",
    )
)

_WHEEL_EXCLUDE = "/lib;/include;/bin"
"""Second copies of the libraries, and headers: nothing but `llama_cpp` goes into site-packages."""

_WRAPPER = """#!/bin/sh
# CMake wants one program to call, and zig names the processor with -mcpu only.
for argument do
    shift
    if [ "$argument" = -march=native ]; then argument=-mcpu=native; fi
    set -- "$@" "$argument"
done
exec {zig} {mode} "$@"
"""

_MIN_FREE_BYTES = 1_500_000_000
_BYTES_PER_JOB = 1_500_000_000


def build_files_digest() -> str:
    """A hash of what besides the recipe decides how a wheel is built."""
    files = (LEAN_CMAKE, *SOURCE_EDITS)
    text = "".join(file.read_text(encoding="utf-8") for file in files) + _WRAPPER + _WHEEL_EXCLUDE
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def num_jobs(num_cpus: int, memory_bytes: int) -> int:
    """Compilers to run at once: as many as there are cores, if the memory allows."""
    return max(1, min(num_cpus, memory_bytes // _BYTES_PER_JOB))


def build_environment(
    recipe: Recipe, env: Mapping[str, str], workspace: Path, compilers: tuple[Path, Path]
) -> dict[str, str]:
    """The variables of a build: the user's own, the recipe's, and temporary folders."""
    temporary = workspace / "tmp"
    temporary.mkdir(exist_ok=True)
    cc, cxx = compilers
    arguments = [
        *recipe.cmake_args,
        f"-DCMAKE_C_COMPILER={cc}",
        f"-DCMAKE_CXX_COMPILER={cxx}",
        f"-DCMAKE_PROJECT_llama.cpp_INCLUDE={LEAN_CMAKE}",
        f"-DEDGESPEC_PYTHON={sys.executable}",
    ]
    own = {name: env.get(name, "") for name in BUILD_VARIABLES}
    build = {name: value for name, value in env.items() if name not in ("CC", "CXX")}
    build.setdefault("CMAKE_BUILD_PARALLEL_LEVEL", str(num_jobs(os.cpu_count() or 1, _memory())))
    build |= {
        "CMAKE_ARGS": f"{shlex.join(arguments)} {own['CMAKE_ARGS']}".strip(),
        "CFLAGS": " ".join([*recipe.flags, own["CFLAGS"]]).strip(),
        "CXXFLAGS": " ".join([*recipe.flags, own["CXXFLAGS"]]).strip(),
        "SKBUILD_WHEEL_EXCLUDE": _WHEEL_EXCLUDE,
        "TMPDIR": str(temporary),
        "ZIG_GLOBAL_CACHE_DIR": str(workspace / "zig-cache"),
        "ZIG_LOCAL_CACHE_DIR": str(workspace / "zig-cache"),
    }
    return build


def _memory() -> int:
    """Bytes of main memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class WheelBuilder:
    """Builds wheels with pip, which fetches the source and, where missing, CMake and Ninja."""

    def __init__(self, pip: tuple[str, ...], runner: Runner, env: Mapping[str, str]) -> None:
        """`pip` is the command to run pip with, `env` the variables to run it in."""
        self._pip = pip
        self._runner = runner
        self._env = env

    def build(self, recipe: Recipe, llama_version: str, workspace: Path) -> Path:
        """The wheel, inside `workspace`; takes a minute or more; raises BootstrapError."""
        if shutil.disk_usage(workspace).free < _MIN_FREE_BYTES:
            raise DiskFullError
        compilers = self._compilers(recipe, workspace)
        # Without --no-cache-dir pip hands back a wheel that it built once, with any compiler.
        options = ("--no-deps", "--no-cache-dir", "--no-binary", "llama-cpp-python", "-v")
        command = (*self._pip, "wheel", *options, "-w", str(workspace))
        self._runner.require(
            f"building llama.cpp with {recipe.label}",
            (*command, f"llama-cpp-python=={llama_version}"),
            build_environment(recipe, self._env, workspace, compilers),
        )
        wheels = list(workspace.glob("*.whl"))
        if not wheels:
            raise BootstrapError("the build left no wheel", "run it again, and report it")
        return wheels[0]

    def _compilers(self, recipe: Recipe, workspace: Path) -> tuple[Path, Path]:
        """Paths of the C and the C++ compiler."""
        if recipe.compiler != "zig":
            return Path(recipe.cc), Path(recipe.cxx)
        target = workspace / "zig"
        requirement = f"ziglang=={recipe.version}"
        options = ("--no-deps", "--no-cache-dir", "--only-binary", "ziglang", "--target", target)
        self._runner.require(
            f"fetching {recipe.label}", (*self._pip, "install", *options, requirement), self._env
        )
        return write_wrappers(target / "ziglang" / "zig", workspace)


def write_wrappers(zig: Path, folder: Path) -> tuple[Path, Path]:
    """Write two programs into `folder` that run `zig` as a C and as a C++ compiler."""
    wrappers = folder / "zig-cc", folder / "zig-c++"
    for path, mode in zip(wrappers, ("cc", "c++"), strict=True):
        path.write_text(_WRAPPER.format(zig=shlex.quote(str(zig)), mode=mode), encoding="utf-8")
        path.chmod(0o755)
    return wrappers
