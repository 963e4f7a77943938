"""The choice of a build is a pure function of the described machine."""

from __future__ import annotations

import dataclasses

import pytest
from bootstrap.machine import Compiler, Family, Machine
from bootstrap.recipes import NO_AMX_FLAGS, NO_OPENMP, ZIGLANG_VERSION, recipes
from hypothesis import given
from hypothesis import strategies as st

AMX = frozenset({"avx512f", "amx_tile", "amx_int8", "amx_bf16"})
AVX512 = frozenset({"avx512f", "avx512_vnni"})


def compiler(family: Family, *version: int) -> Compiler:
    sound = family != "gcc" or version >= (13,)
    return Compiler(family, version, f"/usr/bin/{family}", f"/usr/bin/{family}++", sound)


def linux(flags: frozenset[str], *compilers: Compiler, arch: str = "x86_64") -> Machine:
    return Machine("Linux", arch, "some processor", flags, compilers)


GCC_9 = compiler("gcc", 9, 4, 0)
GCC_12 = compiler("gcc", 12, 2, 0)
GCC_13 = compiler("gcc", 13, 2, 0)
CLANG_14 = compiler("clang", 14, 0, 6)
CLANG_19 = compiler("clang", 19, 1, 7)


def labels(machine: Machine) -> list[str]:
    return [recipe.label for recipe in recipes(machine)]


ZIG = f"the ziglang {ZIGLANG_VERSION} package"


@pytest.mark.parametrize("flags", [AMX, AVX512], ids=["Intel with AMX", "AMD"])
def test_old_gcc_comes_last_and_never_with_amx(flags: frozenset[str]) -> None:
    assert labels(linux(flags, GCC_12)) == [ZIG, "GCC 12.2.0 without AMX"]
    assert recipes(linux(flags, GCC_12))[1].flags == NO_AMX_FLAGS


def test_clang_comes_before_everything() -> None:
    machine = linux(AMX, CLANG_19, GCC_12)
    assert labels(machine) == ["clang 19.1.7", ZIG, "GCC 12.2.0 without AMX"]
    assert recipes(machine)[0].flags == ()


def test_old_clang_is_left_out() -> None:
    assert labels(linux(AMX, CLANG_14)) == [ZIG]


def test_new_gcc_is_taken_as_it_is() -> None:
    assert labels(linux(AMX, GCC_13)) == ["GCC 13.2.0", ZIG]
    assert recipes(linux(AMX, GCC_13))[0].flags == ()


def test_a_new_gcc_that_is_found_to_drop_the_tile_configuration_builds_without_amx() -> None:
    patched = dataclasses.replace(GCC_13, keeps_tile_config=False)
    assert labels(linux(AMX, patched)) == ["GCC 13.2.0 without AMX", ZIG]


def test_of_two_gccs_the_new_one_is_taken_first() -> None:
    assert labels(linux(AMX, GCC_13, GCC_12)) == ["GCC 13.2.0", ZIG, "GCC 12.2.0 without AMX"]


def test_gcc_before_11_is_not_given_flags_that_it_does_not_know() -> None:
    assert labels(linux(AMX, GCC_9)) == [ZIG, "GCC 9.4.0"]
    assert recipes(linux(AMX, GCC_9))[1].flags == ()


def test_gcc_before_9_is_left_out() -> None:
    assert labels(linux(AVX512, compiler("gcc", 8, 3, 0))) == [ZIG]


def test_without_a_compiler_the_package_index_is_the_only_way() -> None:
    assert labels(linux(AVX512)) == [ZIG]


def test_on_arm_gcc_is_sound_and_needs_no_download() -> None:
    machine = linux(frozenset({"asimd", "i8mm"}), GCC_12, arch="aarch64")
    assert labels(machine) == ["GCC 12.2.0", ZIG]
    assert recipes(machine)[0].flags == ()


def test_macos_uses_apples_clang_and_leaves_metal_to_the_project() -> None:
    apple = compiler("apple-clang", 16, 0, 0)
    machine = Machine("Darwin", "arm64", "Apple M3", frozenset(), (apple, GCC_13))
    (recipe,) = recipes(machine)
    assert recipe.label == "Apple clang 16.0.0"
    assert not any("METAL" in argument for argument in recipe.cmake_args)


def test_macos_without_the_command_line_tools_has_no_way() -> None:
    assert recipes(Machine("Darwin", "arm64", "Apple M3", frozenset())) == ()


def test_openmp_is_off_where_its_runtime_is_no_part_of_the_compiler() -> None:
    by_compiler = {recipe.compiler: recipe for recipe in recipes(linux(AMX, CLANG_19, GCC_13))}
    assert NO_OPENMP in by_compiler["clang"].cmake_args
    assert NO_OPENMP in by_compiler["zig"].cmake_args
    assert NO_OPENMP not in by_compiler["gcc"].cmake_args


COMPILERS = st.builds(
    compiler,
    st.sampled_from(["gcc", "clang"]),
    st.integers(4, 25),
    st.integers(0, 9),
)


@given(
    flags=st.sampled_from([AMX, AVX512, frozenset[str]()]),
    arch=st.sampled_from(["x86_64", "aarch64"]),
    found=st.lists(COMPILERS, max_size=5),
)
def test_no_machine_is_given_an_unsound_build(
    flags: frozenset[str], arch: str, found: list[Compiler]
) -> None:
    choices = recipes(linux(flags, *found, arch=arch))
    assert choices, "the package index is always left to try"
    for recipe in choices:
        major = int(recipe.version.split(".")[0])
        if recipe.compiler == "gcc":
            unsound = arch == "x86_64" and major in (11, 12)
            assert recipe.flags == (NO_AMX_FLAGS if unsound else ())
            assert major >= 9
        if recipe.compiler == "clang":
            assert major >= 15
        assert "-DGGML_NATIVE=ON" in recipe.cmake_args
