"""What this machine is: system, processor and the C/C++ compilers on its search path."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_TILE_MARK = bytes.fromhex("d3029649")
_TILE_PROBE = """
#include <immintrin.h>
void load(void) {
    struct { unsigned char head[48]; unsigned int mark; unsigned char tail[12]; } config = {{1}};
    config.mark = 0x499602d3;
    _tile_loadconfig(&config);
}
"""

Family = Literal["clang", "apple-clang", "gcc"]


@dataclass(frozen=True, slots=True)
class Compiler:
    """A C compiler and the C++ compiler that belongs to it.

    `keeps_tile_config` is False if it drops the AMX tile configuration (`keeps_tile_config`).
    """

    family: Family
    version: tuple[int, ...]
    cc: str
    cxx: str
    keeps_tile_config: bool = True


@dataclass(frozen=True, slots=True)
class Machine:
    """All that the choice of a build depends on; `arch` is the kernel's name (x86_64, arm64)."""

    system: str
    arch: str
    cpu_model: str
    cpu_flags: frozenset[str]
    compilers: tuple[Compiler, ...] = ()

    @property
    def is_x86(self) -> bool:
        """True on 64-bit Intel and AMD processors."""
        return self.arch in ("x86_64", "AMD64", "amd64")

    @property
    def cpu_id(self) -> str:
        """A short hash of the processor: libraries built for one may not run on another."""
        text = "\n".join([self.system, self.arch, self.cpu_model, *sorted(self.cpu_flags)])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def parse_cpuinfo(text: str) -> tuple[str, frozenset[str]]:
    """Model and feature flags of the first processor in /proc/cpuinfo's text (x86 or ARM)."""
    facts: dict[str, str] = {}
    for line in text.split("\n\n", 1)[0].splitlines():
        name, _, value = line.partition(":")
        facts[name.strip()] = value.strip()
    names = ("vendor_id", "cpu family", "model", "model name", "CPU implementer", "CPU part")
    model = " ".join(facts[name] for name in names if facts.get(name))
    return model, frozenset((facts.get("flags") or facts.get("Features") or "").split())


def describe_cpu(system: str) -> tuple[str, frozenset[str]]:
    """Model and feature flags of the processor this runs on."""
    if system == "Linux":
        try:
            return parse_cpuinfo(Path("/proc/cpuinfo").read_text(errors="replace"))
        except OSError:
            return platform.processor(), frozenset()
    if system == "Darwin":
        return _first_line(["sysctl", "-n", "machdep.cpu.brand_string"]), frozenset()
    return platform.processor(), frozenset()


def describe_machine() -> Machine:
    """This machine without its compilers: quick, nothing but one small file is read."""
    system = platform.system()
    model, flags = describe_cpu(system)
    return Machine(system, platform.machine(), model, flags)


def platform_tag() -> str:
    """Platform and C library, such as `linux-x86_64-glibc2.36`."""
    return "-".join([sysconfig.get_platform(), "".join(platform.libc_ver())]).rstrip("-")


def find_compilers(search_path: str) -> tuple[Compiler, ...]:
    """Every compiler pair on `search_path` that answers, newest version first in each family."""
    found: dict[tuple[Family, tuple[int, ...]], Compiler] = {}
    for cc, cxx in _pairs(search_path):
        compiler = identify(cc, cxx)
        if compiler is not None:
            found.setdefault((compiler.family, compiler.version), compiler)
    return tuple(sorted(found.values(), key=lambda compiler: compiler.version, reverse=True))


def _pairs(search_path: str) -> Iterator[tuple[str, str]]:
    """C compilers with a C++ compiler of the same version suffix in the same folder."""
    partner = {"clang": "clang++", "gcc": "g++", "cc": "c++"}
    for folder in dict.fromkeys(search_path.split(os.pathsep)):
        try:
            names = [entry.name for entry in Path(folder or os.curdir).iterdir()]
        except OSError:
            continue
        # Names that tell the compiler go before `cc`, which is often a link to one of them.
        for name in sorted(names, key=lambda name: (name.startswith("cc"), len(name), name)):
            match = re.fullmatch(r"(clang|gcc|cc)(-\d+)?", name)
            if match:
                cxx = Path(folder, partner[match[1]] + (match[2] or ""))
                if cxx.exists():
                    yield str(Path(folder, name).absolute()), str(cxx.absolute())


def identify(cc: str, cxx: str) -> Compiler | None:
    """Family and version of a pair, asked from the C compiler; None if it does not run."""
    first = _first_line([cc, "--version"])
    match = re.search(r"clang version (\d+(?:\.\d+)*)", first)
    if match:
        family: Family = "apple-clang" if first.startswith("Apple") else "clang"
        return Compiler(family, _numbers(match[1]), cc, cxx)
    version = _first_line([cc, "-dumpfullversion", "-dumpversion"])
    if re.fullmatch(r"\d+(\.\d+)*", version):
        return Compiler("gcc", _numbers(version), cc, cxx, keeps_tile_config(cc))
    return None


def keeps_tile_config(cc: str) -> bool:
    """True if the AMX tile configuration, 64 bytes in memory, is whole when it is loaded.

    Some headers of GCC tell the optimizer that `_tile_loadconfig` reads 8 bytes, and the stores of
    the others are dropped. Looks for a number stored beyond them in the object file, so it needs
    no processor with AMX; False too if the compiler or its assembler does not know AMX.
    """
    with tempfile.TemporaryDirectory(prefix="edgespec-") as folder:
        compiled = Path(folder, "probe.o")
        source = Path(folder, "probe.c")
        source.write_text(_TILE_PROBE, encoding="ascii")
        _first_line([cc, "-O2", "-mamx-tile", "-c", str(source), "-o", str(compiled)])
        return compiled.is_file() and _TILE_MARK in compiled.read_bytes()


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _first_line(command: list[str]) -> str:
    """First line that a command prints; empty if it cannot be run or fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = done.stdout.splitlines()
    return lines[0].strip() if done.returncode == 0 and lines else ""
