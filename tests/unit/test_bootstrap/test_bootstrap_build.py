"""How a recipe reaches pip, CMake and the compiler; pip is a script that writes down its call."""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from bootstrap.build import (
    LEAN_CMAKE,
    WheelBuilder,
    build_environment,
    build_files_digest,
    num_jobs,
    write_wrappers,
)
from bootstrap.command import Console, Runner
from bootstrap.errors import BootstrapError, DiskFullError, NoNetworkError
from bootstrap.recipes import NO_AMX_FLAGS, Recipe

GCC = Recipe("gcc", "12.2.0", "/opt/my tools/gcc", "/opt/my tools/g++", NO_AMX_FLAGS)
ZIG = Recipe("zig", "0.17.0")

RECORDING_PIP = """
import json, os, pathlib, sys
arguments = sys.argv[1:]
names = ("CMAKE_ARGS", "CFLAGS", "CXXFLAGS", "CC", "TMPDIR", "SKBUILD_WHEEL_EXCLUDE")
env = {name: os.environ[name] for name in names if name in os.environ}
call = {"arguments": arguments, "env": env}
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps(call) + "\\n")
if arguments[0] == "install":
    zig = pathlib.Path(arguments[arguments.index("--target") + 1], "ziglang", "zig")
    zig.parent.mkdir(parents=True)
    zig.write_text("#!/bin/sh\\n")
else:
    pathlib.Path(arguments[arguments.index("-w") + 1], "llama_cpp_python-1.whl").write_text("wheel")
"""


def builder(tmp_path: Path, pip: str) -> WheelBuilder:
    script = tmp_path / "pip.py"
    script.write_text(pip, encoding="utf-8")
    env = {**os.environ, "CALLS": str(tmp_path / "calls"), "CC": "/usr/bin/tcc"}
    runner = Runner(tmp_path / "log", Console(io.StringIO()))
    return WheelBuilder((sys.executable, str(script)), runner, env)


def calls(tmp_path: Path) -> list[dict[str, dict[str, str]]]:
    return [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "work space"
    folder.mkdir()
    return folder


def test_pip_builds_the_pinned_version_from_source_and_caches_nothing(
    tmp_path: Path, workspace: Path
) -> None:
    wheel = builder(tmp_path, RECORDING_PIP).build(GCC, "0.3.36", workspace)
    assert wheel == workspace / "llama_cpp_python-1.whl"
    (call,) = calls(tmp_path)
    arguments = list(call["arguments"])
    assert arguments[0] == "wheel"
    assert arguments[-1] == "llama-cpp-python==0.3.36"
    assert {"--no-deps", "--no-cache-dir", "--no-binary"} <= set(arguments)


def test_flags_compilers_and_temporary_folders_reach_the_build(
    tmp_path: Path, workspace: Path
) -> None:
    builder(tmp_path, RECORDING_PIP).build(GCC, "0.3.36", workspace)
    env = calls(tmp_path)[0]["env"]
    arguments = shlex.split(env["CMAKE_ARGS"])
    assert "-DCMAKE_C_COMPILER=/opt/my tools/gcc" in arguments
    assert "-DCMAKE_CXX_COMPILER=/opt/my tools/g++" in arguments
    assert f"-DCMAKE_PROJECT_llama.cpp_INCLUDE={LEAN_CMAKE}" in arguments
    assert set(GCC.cmake_args) <= set(arguments)
    assert env["CFLAGS"] == env["CXXFLAGS"] == "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
    assert "CC" not in env
    assert Path(env["TMPDIR"]).parent == workspace


def test_the_users_own_variables_are_added_to_the_recipes(workspace: Path) -> None:
    user = {"CMAKE_ARGS": "-DGGML_CUDA=ON", "CFLAGS": "-I/x", "CMAKE_BUILD_PARALLEL_LEVEL": "1"}
    env = build_environment(GCC, user, workspace, (Path("gcc"), Path("g++")))
    assert env["CMAKE_ARGS"].endswith(" -DGGML_CUDA=ON")
    assert env["CFLAGS"] == " ".join([*NO_AMX_FLAGS, "-I/x"])
    assert env["CXXFLAGS"] == " ".join(NO_AMX_FLAGS)
    assert env["CMAKE_BUILD_PARALLEL_LEVEL"] == "1"


def test_the_ziglang_package_is_fetched_and_called_through_wrappers(
    tmp_path: Path, workspace: Path
) -> None:
    builder(tmp_path, RECORDING_PIP).build(ZIG, "0.3.36", workspace)
    fetch, build = calls(tmp_path)
    assert list(fetch["arguments"])[-1] == "ziglang==0.17.0"
    arguments = shlex.split(build["env"]["CMAKE_ARGS"])
    assert f"-DCMAKE_C_COMPILER={workspace / 'zig-cc'}" in arguments
    assert os.access(workspace / "zig-c++", os.X_OK)


def test_wrappers_keep_every_argument_and_translate_the_native_processor(workspace: Path) -> None:
    zig = workspace / "zig"
    zig.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n', encoding="utf-8")
    zig.chmod(0o755)
    cc, cxx = write_wrappers(zig, workspace)
    arguments = ["-march=native", "-DNAME=two words", "it's", "", "-march=znver5", "*.c"]
    done = subprocess.run([cc, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:-1] == ["cc", "-mcpu=native", *arguments[1:]]
    done = subprocess.run([cxx, "-c"], capture_output=True, text=True, check=True)
    assert done.stdout == "c++\n-c\n"


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("No space left on device", DiskFullError),
        ("NewConnectionError: refused", NoNetworkError),
        ("CMake Error: your compiler is broken", BootstrapError),
    ],
)
def test_a_failed_build_says_why(
    tmp_path: Path, workspace: Path, output: str, expected: type[BootstrapError]
) -> None:
    pip = f"print({output!r}); raise SystemExit(1)"
    with pytest.raises(expected) as caught:
        builder(tmp_path, pip).build(GCC, "0.3.36", workspace)
    assert type(caught.value) is expected


def test_a_build_that_leaves_no_wheel_is_an_error(tmp_path: Path, workspace: Path) -> None:
    with pytest.raises(BootstrapError, match="no wheel"):
        builder(tmp_path, "").build(GCC, "0.3.36", workspace)


@pytest.mark.parametrize(
    ("cpus", "gigabytes", "jobs"), [(2, 16, 2), (16, 8, 5), (8, 1, 1), (1, 64, 1)]
)
def test_jobs_fit_the_memory(cpus: int, gigabytes: int, jobs: int) -> None:
    assert num_jobs(cpus, gigabytes * 10**9) == jobs


def test_build_files_are_hashed() -> None:
    assert build_files_digest() == build_files_digest()
    assert len(build_files_digest()) == 16
