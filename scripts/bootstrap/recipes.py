"""Which builds of llama.cpp are sound on a described machine, best first.

GCC 11 and 12 miscompile `_tile_loadconfig`, so a library with the AMX path in it crashes at its
first matrix product; older GCC has no AMX, GCC 13 and clang are right. Any GCC that is found out
to do so (`Compiler.keeps_tile_config`) builds without that path. The compiler of the `ziglang`
package is a clang that the package index brings; it builds a faster library than GCC 12 does even
without AMX, so it comes before GCC that is older than 13. Everything here is a pure function of
the `Machine`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bootstrap.machine import Compiler, Machine

ZIGLANG_VERSION = "0.17.0"

MIN_CLANG = (15,)
MIN_GCC = (9,)
_AMX_IN_GCC = (11,)
_FAST_GCC = (13,)

NO_AMX_FLAGS = ("-mno-amx-tile", "-mno-amx-int8", "-mno-amx-bf16")

COMMON_CMAKE_ARGS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DGGML_NATIVE=ON",
    "-DLLAVA_BUILD=OFF",
    "-DGGML_RPC=ON",
)
NO_OPENMP = "-DGGML_OPENMP=OFF"


@dataclass(frozen=True, slots=True)
class Recipe:
    """One way to build: the compiler, its extra flags, and the CMake arguments.

    `cc` and `cxx` are paths, empty for the `ziglang` package, which is fetched for the build.
    """

    compiler: Literal["clang", "apple-clang", "gcc", "zig"]
    version: str
    cc: str = ""
    cxx: str = ""
    flags: tuple[str, ...] = ()
    cmake_args: tuple[str, ...] = COMMON_CMAKE_ARGS

    @property
    def label(self) -> str:
        """How the user is told of it, such as `GCC 12.2.0 without AMX`."""
        names = {"clang": "clang", "apple-clang": "Apple clang", "gcc": "GCC"}
        if self.compiler == "zig":
            return f"the ziglang {self.version} package"
        without = " without AMX" if self.flags == NO_AMX_FLAGS else ""
        return f"{names[self.compiler]} {self.version}{without}"


def recipes(machine: Machine) -> tuple[Recipe, ...]:
    """The builds to try on `machine`, best first; empty if there is no way."""
    if machine.system == "Darwin":
        return tuple(
            _with(compiler) for compiler in machine.compilers if compiler.family == "apple-clang"
        )
    clangs = _clang_recipes(machine)
    new_gccs = _gcc_recipes(machine, _FAST_GCC, (999,))
    old_gccs = _gcc_recipes(machine, MIN_GCC, _FAST_GCC)
    zig = Recipe("zig", ZIGLANG_VERSION, cmake_args=(*COMMON_CMAKE_ARGS, NO_OPENMP))
    if machine.is_x86:
        return (*clangs, *new_gccs, zig, *old_gccs)
    return (*clangs, *new_gccs, *old_gccs, zig)


def _clang_recipes(machine: Machine) -> tuple[Recipe, ...]:
    """Without OpenMP: clang's runtime is a package of its own that may vanish with it."""
    arguments = (*COMMON_CMAKE_ARGS, NO_OPENMP)
    return tuple(
        _with(compiler, cmake_args=arguments)
        for compiler in machine.compilers
        if compiler.family == "clang" and compiler.version >= MIN_CLANG
    )


def _gcc_recipes(
    machine: Machine, lowest: tuple[int, ...], below: tuple[int, ...]
) -> tuple[Recipe, ...]:
    """GCC from version `lowest` on, `below` not included."""
    return tuple(
        _with(compiler, flags=_gcc_flags(machine, compiler))
        for compiler in machine.compilers
        if compiler.family == "gcc" and lowest <= compiler.version < below
    )


def _gcc_flags(machine: Machine, compiler: Compiler) -> tuple[str, ...]:
    """Flags that keep AMX out where it is unsound; older GCC and other processors lack it."""
    unsound = compiler.version >= _AMX_IN_GCC and not compiler.keeps_tile_config
    return NO_AMX_FLAGS if machine.is_x86 and unsound else ()


def _with(
    compiler: Compiler,
    flags: tuple[str, ...] = (),
    cmake_args: tuple[str, ...] = COMMON_CMAKE_ARGS,
) -> Recipe:
    version = ".".join(map(str, compiler.version))
    return Recipe(compiler.family, version, compiler.cc, compiler.cxx, flags, cmake_args)
