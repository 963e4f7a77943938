"""From the list of builds to an installed one: real wheels, a real environment, real crashes."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from bootstrap.environment import BUILD_RECORD, STAMP
from bootstrap.errors import BootstrapError, DiskFullError
from bootstrap_support import (
    CLANG_19,
    CRASHES,
    DOES_NOT_LOAD,
    GCC_12,
    GCC_13,
    SOUND,
    WITH_AMX,
    Bench,
    TinyBuilder,
)


@pytest.fixture
def bench(clone: Path) -> Bench:
    return Bench(clone)


def installed(bench: Bench) -> str:
    """What the installed llama_cpp says of itself."""
    code = "import llama_cpp; print(llama_cpp.llama_print_system_info().decode())"
    python = bench.environment.python
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def recorded_compiler(bench: Bench) -> object:
    return json.loads((bench.root / ".venv" / BUILD_RECORD).read_text())["compiler"]


def test_the_first_choice_is_built_installed_recorded_and_cached(bench: Bench) -> None:
    builder = TinyBuilder({"clang": SOUND})
    recipe = bench.bootstrap(builder, CLANG_19, GCC_13).install_llama()
    assert recipe.compiler == "clang"
    assert installed(bench) == "AVX512 = 1"
    assert recorded_compiler(bench) == "clang"
    assert [path.name[:16] for path in (bench.root / "wheels").iterdir()] == ["0.3.36-clang19.1"]


def test_a_cached_wheel_is_not_built_again(bench: Bench) -> None:
    builder = TinyBuilder({"clang": SOUND})
    for _ in range(2):
        bench.bootstrap(builder, CLANG_19).install_llama()
    assert builder.built == ["clang"]


def test_old_wheels_go_when_a_new_one_works(bench: Bench) -> None:
    """Those last used stay: of the two that come from the cache again, none is built anew."""
    clangs = [replace(CLANG_19, version=(19, 1, minor)) for minor in range(4)]
    builder = TinyBuilder({"clang": SOUND})
    for clang in (*clangs[:3], clangs[0], clangs[1], clangs[3]):
        bench.bootstrap(builder, clang).install_llama()
    assert len(builder.built) == 4
    left = {path.name[:19] for path in (bench.root / "wheels").iterdir()}
    assert left == {f"0.3.36-clang19.1.{minor}-" for minor in (0, 1, 3)}


def test_a_build_that_is_of_no_use_drives_no_other_out(bench: Bench) -> None:
    clangs = [replace(CLANG_19, version=(19, 1, minor)) for minor in range(3)]
    for clang in clangs:
        bench.bootstrap(TinyBuilder({"clang": SOUND}), clang).install_llama()
    before = set((bench.root / "wheels").iterdir())
    useless = TinyBuilder({"gcc": CRASHES, "zig": CRASHES})
    with pytest.raises(BootstrapError, match="of no use"):
        bench.bootstrap(useless, GCC_13).install_llama()
    assert set((bench.root / "wheels").iterdir()) == before


@pytest.mark.parametrize("broken", [CRASHES, DOES_NOT_LOAD])
def test_a_build_that_does_not_load_gives_way_to_the_next(bench: Bench, broken: str) -> None:
    builder = TinyBuilder({"clang": broken, "gcc": SOUND})
    recipe = bench.bootstrap(builder, CLANG_19, GCC_13).install_llama()
    assert recipe.compiler == "gcc"
    assert installed(bench) == "AVX512 = 1"
    assert recorded_compiler(bench) == "gcc"
    assert [path.name[:10] for path in (bench.root / "wheels").iterdir()] == ["0.3.36-gcc"]
    assert "is of no use: it " in bench.said.getvalue()
    assert "; trying GCC 13.2.0 instead\n" in bench.said.getvalue()


def test_a_failed_build_gives_way_to_the_next(bench: Bench) -> None:
    failed = BootstrapError("no C++ headers", "install them")
    builder = TinyBuilder({"clang": failed, "gcc": SOUND})
    assert bench.bootstrap(builder, CLANG_19, GCC_13).install_llama().compiler == "gcc"
    told = "edgespec: no C++ headers; install them; trying GCC 13.2.0 instead\n"
    assert told in bench.said.getvalue()


def test_a_cached_wheel_that_no_longer_loads_is_built_again(bench: Bench) -> None:
    bench.bootstrap(TinyBuilder({"clang": SOUND}), CLANG_19).install_llama()
    package = next((bench.root / ".venv" / "lib").glob("*/site-packages/llama_cpp/__init__.py"))
    package.write_text(DOES_NOT_LOAD, encoding="utf-8")
    builder = TinyBuilder({"clang": SOUND})
    bench.bootstrap(builder, CLANG_19).install_llama()
    assert builder.built == ["clang"]
    assert installed(bench) == "AVX512 = 1"


def test_old_gcc_with_amx_in_it_is_refused(bench: Bench) -> None:
    builder = TinyBuilder({"zig": BootstrapError("not to be had", "no"), "gcc": WITH_AMX})
    with pytest.raises(BootstrapError, match="AMX path that this compiler miscompiles"):
        bench.bootstrap(builder, GCC_12).install_llama()
    assert list((bench.root / "wheels").iterdir()) == []


def test_other_compilers_may_have_amx(bench: Bench) -> None:
    bench.bootstrap(TinyBuilder({"clang": WITH_AMX}), CLANG_19).install_llama()
    assert installed(bench) == "AMX_INT8 = 1"


def test_the_last_failure_is_the_error(bench: Bench) -> None:
    outcomes = {name: BootstrapError(f"{name} failed", "see") for name in ("clang", "gcc", "zig")}
    with pytest.raises(BootstrapError, match="zig failed"):
        bench.bootstrap(TinyBuilder(outcomes), CLANG_19, GCC_13).install_llama()


def test_a_full_disk_ends_it_at_once(bench: Bench) -> None:
    builder = TinyBuilder({"clang": DiskFullError(), "gcc": SOUND})
    with pytest.raises(DiskFullError):
        bench.bootstrap(builder, CLANG_19, GCC_13).install_llama()
    assert builder.built == ["clang"]


def test_without_a_compiler_and_without_the_index_the_user_is_told_what_to_install(
    bench: Bench,
) -> None:
    builder = TinyBuilder({"zig": BootstrapError("no network", "check")})
    with pytest.raises(BootstrapError, match=r"compiler found.*apt install"):
        bench.bootstrap(builder).install_llama()


def test_a_build_for_another_processor_replaces_the_installed_one(bench: Bench) -> None:
    bench.bootstrap(TinyBuilder({"clang": SOUND}), CLANG_19).install_llama()
    bench.bootstrap(TinyBuilder({"gcc": WITH_AMX}), GCC_13).install_llama()
    assert installed(bench) == "AMX_INT8 = 1"
    assert recorded_compiler(bench) == "gcc"


def test_a_failed_installation_leaves_the_environment_usable_but_unfinished(bench: Bench) -> None:
    bootstrap = bench.bootstrap(TinyBuilder({"clang": SOUND}), CLANG_19)
    with pytest.raises(BootstrapError, match="installing EdgeSpec failed"):
        bootstrap.run("inputs", dev=False)  # there is no pyproject.toml in this clone
    assert installed(bench) == "AVX512 = 1"
    assert not (bench.root / ".venv" / STAMP).exists()
    assert not bench.environment.satisfies("inputs", dev=False)
    marker = bench.root / ".venv" / "marker"
    marker.touch()
    bench.environment.begin()
    assert marker.exists(), "an orderly failure does not throw the environment away"
