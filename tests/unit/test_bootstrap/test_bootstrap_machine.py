"""Finding compilers by running them, and reading what the kernel says of the processor."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

import pytest
from bootstrap.machine import (
    Machine,
    describe_machine,
    find_compilers,
    identify,
    keeps_tile_config,
    parse_cpuinfo,
    platform_tag,
)

X86 = """processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 143
model name\t: Intel(R) Xeon(R) Platinum 8481C
cpu MHz\t\t: 2700.000
flags\t\t: fpu sse2 avx512f amx_tile amx_int8

processor\t: 1
vendor_id\t: GenuineIntel
model name\t: another
flags\t\t: fpu
"""

ARM = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd i8mm
CPU implementer\t: 0x41
CPU part\t: 0xd0b
"""


def program(folder: Path, name: str, output: str, status: int = 0) -> None:
    """An executable that prints `output` whatever it is asked."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{output}\nEND\nexit {status}\n", encoding="utf-8")
    path.chmod(0o755)


def test_cpuinfo_of_an_x86_processor() -> None:
    model, flags = parse_cpuinfo(X86)
    assert model == "GenuineIntel 6 143 Intel(R) Xeon(R) Platinum 8481C"
    assert flags == {"fpu", "sse2", "avx512f", "amx_tile", "amx_int8"}


def test_cpuinfo_of_an_arm_processor() -> None:
    assert parse_cpuinfo(ARM) == ("0x41 0xd0b", frozenset({"fp", "asimd", "i8mm"}))


def test_cpuinfo_without_facts() -> None:
    assert parse_cpuinfo("") == ("", frozenset())


def test_cpu_id_tells_processors_apart_and_nothing_else() -> None:
    machine = Machine("Linux", "x86_64", "a", frozenset({"sse2", "avx2"}))
    same = Machine("Linux", "x86_64", "a", frozenset({"avx2", "sse2"}))
    assert machine.cpu_id == same.cpu_id
    others = [
        Machine("Linux", "x86_64", "b", machine.cpu_flags),
        Machine("Linux", "x86_64", "a", machine.cpu_flags | {"avx512f"}),
        Machine("Linux", "aarch64", "a", machine.cpu_flags),
    ]
    assert len({machine.cpu_id, *(other.cpu_id for other in others)}) == 4


def test_this_machine_is_described() -> None:
    machine = describe_machine()
    assert machine.system == platform.system()
    assert machine.cpu_model
    assert describe_machine().cpu_id == machine.cpu_id
    assert platform_tag().startswith(("linux-", "macosx-"))


def test_compilers_are_paired_identified_and_newest_first(tmp_path: Path) -> None:
    usr = tmp_path / "usr bin"
    for name in ("clang-15", "clang++-15"):
        program(usr, name, "Ubuntu clang version 15.0.7")
    for name in ("clang-19", "clang++-19"):
        program(usr, name, "Debian clang version 19.1.7 (3+b1)\nTarget: x86_64-pc-linux-gnu")
    for name in ("gcc", "g++"):
        program(usr, name, "12.2.0")
    found = find_compilers(f"{usr}:{tmp_path / 'missing'}")
    assert [(compiler.family, compiler.version) for compiler in found] == [
        ("clang", (19, 1, 7)),
        ("clang", (15, 0, 7)),
        ("gcc", (12, 2, 0)),
    ]
    assert found[0].cc == str(usr / "clang-19")
    assert found[0].cxx == str(usr / "clang++-19")


def test_a_c_compiler_without_its_cpp_compiler_does_not_count(tmp_path: Path) -> None:
    program(tmp_path, "gcc", "13.1.0")
    program(tmp_path, "g++-12", "12.1.0")
    assert find_compilers(str(tmp_path)) == ()


def test_one_compiler_under_several_names_counts_once(tmp_path: Path) -> None:
    for name in ("cc", "c++", "gcc", "g++", "gcc-13", "g++-13"):
        program(tmp_path, name, "13.1.0")
    (only,) = find_compilers(str(tmp_path))
    assert only.cc == str(tmp_path / "gcc")


def test_apples_clang_is_told_from_others_even_when_called_gcc(tmp_path: Path) -> None:
    for name in ("gcc", "g++"):
        program(tmp_path, name, "Apple clang version 16.0.0 (clang-1600.0.26.3)")
    (only,) = find_compilers(str(tmp_path))
    assert (only.family, only.version) == ("apple-clang", (16, 0, 0))


@pytest.mark.parametrize("output", ["", "xcode-select: note: no developer tools were found"])
def test_a_stub_that_only_complains_is_no_compiler(tmp_path: Path, output: str) -> None:
    program(tmp_path, "cc", output, status=1)
    assert identify(str(tmp_path / "cc"), str(tmp_path / "c++")) is None


PROBED = """#!/bin/sh
# Writes what a compiler would: the source's number, or an object without it.
while [ "$1" != -o ]; do shift; done
printf '%b' "{bytes}" > "$2"
"""


@pytest.mark.parametrize(
    ("compiled", "keeps"), [(r"\0323\0002\0226\0111", True), (r"\0177ELF", False)]
)
def test_a_dropped_tile_configuration_is_seen_in_the_object(
    tmp_path: Path, compiled: str, keeps: bool
) -> None:
    cc = tmp_path / "gcc"
    cc.write_text(PROBED.replace("{bytes}", compiled), encoding="utf-8")
    cc.chmod(0o755)
    assert keeps_tile_config(str(cc)) is keeps


def test_a_compiler_that_does_not_know_amx_does_not_keep_it(tmp_path: Path) -> None:
    program(tmp_path, "gcc", "unrecognized command-line option", status=1)
    assert not keeps_tile_config(str(tmp_path / "gcc"))


def test_the_compiler_of_this_machine_answers() -> None:
    cc, cxx = shutil.which("cc"), shutil.which("c++")
    if cc is None or cxx is None:
        assert find_compilers("") == ()
        return
    compiler = identify(cc, cxx)
    assert compiler is not None
    assert compiler.version >= (4,)
