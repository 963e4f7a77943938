"""The wheel cache: keys that mean what they say, entries that are whole or absent."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import time
from pathlib import Path

import pytest
from bootstrap.cache import (
    NUM_KEPT,
    RECORD,
    WheelCache,
    WheelKey,
    build_variables,
    cache_folder,
)
from bootstrap.recipes import NO_AMX_FLAGS, Recipe

GCC = Recipe("gcc", "13.2.0", "/usr/bin/gcc", "/usr/bin/g++")
KEY = WheelKey("0.3.36", "cp311", "linux-x86_64-glibc2.36", "abc", GCC, "def")
WHEEL = "llama_cpp_python-0.3.36-py3-none-linux_x86_64.whl"


def built(workspace: Path, content: bytes = b"wheel") -> Path:
    wheel = workspace / WHEEL
    wheel.write_bytes(content)
    return wheel


def test_key_is_the_same_in_every_process() -> None:
    assert KEY.name == "0.3.36-gcc13.2.0-" + KEY.name[-16:]
    assert dataclasses.replace(KEY).name == KEY.name
    # Pinned: a key that changed without need would rebuild everybody's wheels.
    assert KEY.name == "0.3.36-gcc13.2.0-3ee61351fe08cecb"


def test_where_the_compiler_lies_is_not_part_of_the_key() -> None:
    moved = dataclasses.replace(GCC, cc="/opt/gcc", cxx="/opt/g++")
    assert dataclasses.replace(KEY, recipe=moved).name == KEY.name


@pytest.mark.parametrize(
    "other",
    [
        dataclasses.replace(KEY, llama_version="0.3.37"),
        dataclasses.replace(KEY, python_tag="cp312"),
        dataclasses.replace(KEY, platform="linux-x86_64-glibc2.41"),
        dataclasses.replace(KEY, cpu_id="abd"),
        dataclasses.replace(KEY, build_files="deg"),
        dataclasses.replace(KEY, variables=(("CMAKE_ARGS", "-DGGML_CUDA=ON"),)),
        dataclasses.replace(KEY, recipe=dataclasses.replace(GCC, compiler="clang")),
        dataclasses.replace(KEY, recipe=dataclasses.replace(GCC, version="13.3.0")),
        dataclasses.replace(KEY, recipe=dataclasses.replace(GCC, flags=NO_AMX_FLAGS)),
        dataclasses.replace(KEY, recipe=dataclasses.replace(GCC, cmake_args=("-DX=1",))),
    ],
)
def test_whatever_changes_the_library_changes_the_key(other: WheelKey) -> None:
    assert other.name != KEY.name


def test_only_variables_that_reach_the_build_count() -> None:
    env = {"HOME": "/home/me", "CFLAGS": "-O1", "CMAKE_ARGS": "", "LDFLAGS": "-s"}
    assert build_variables(env) == (("CFLAGS", "-O1"), ("LDFLAGS", "-s"))


def test_folder_follows_the_platform(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert cache_folder({}, "Linux", home) == home / ".cache/edgespec/wheels"
    assert cache_folder({}, "Darwin", home) == home / "Library/Caches/edgespec/wheels"
    xdg = {"XDG_CACHE_HOME": str(tmp_path / "xdg")}
    assert cache_folder(xdg, "Linux", home) == tmp_path / "xdg/edgespec/wheels"
    relative = {"XDG_CACHE_HOME": "not/absolute"}
    assert cache_folder(relative, "Linux", home) == home / ".cache/edgespec/wheels"
    own = {"EDGESPEC_HOME": str(tmp_path / "all"), **xdg}
    assert cache_folder(own, "Linux", home) == tmp_path / "all/cache/wheels"


def test_what_is_added_is_found_with_its_record(tmp_path: Path) -> None:
    cache = WheelCache(tmp_path / "wheels")
    assert cache.find(KEY) is None
    with cache.workspace() as workspace:
        wheel = cache.add(KEY, built(workspace))
    assert cache.find(KEY) == wheel
    assert wheel.name == WHEEL
    assert wheel.read_bytes() == b"wheel"
    record = cache.record(KEY)
    assert record["compiler"] == "gcc"
    assert record["version"] == "13.2.0"
    assert record["flags"] == []
    assert record["wheel_key"] == KEY.name
    assert json.loads((wheel.parent / RECORD).read_text()) == record
    cache.drop(KEY)
    assert cache.find(KEY) is None


def test_an_interrupted_build_leaves_nothing(tmp_path: Path) -> None:
    cache = WheelCache(tmp_path)
    with pytest.raises(KeyboardInterrupt), cache.workspace() as workspace:
        built(workspace)
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    assert cache.find(KEY) is None


def test_the_second_of_two_builders_keeps_the_wheel_of_the_first(tmp_path: Path) -> None:
    cache = WheelCache(tmp_path)
    with cache.workspace() as first, cache.workspace() as second:
        assert first != second
        cache.add(KEY, built(first, b"first"))
        wheel = cache.add(KEY, built(second, b"second"))
    assert wheel.read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == [KEY.name]


def test_a_damaged_entry_is_not_found_and_is_replaced(tmp_path: Path) -> None:
    cache = WheelCache(tmp_path)
    with cache.workspace() as workspace:
        wheel = cache.add(KEY, built(workspace, b"old"))
    (wheel.parent / RECORD).unlink()
    assert cache.find(KEY) is None
    with cache.workspace() as workspace:
        assert cache.add(KEY, built(workspace, b"new")).read_bytes() == b"new"


def add_old(cache: WheelCache, *ages: float) -> list[WheelKey]:
    """Entries that were last used so many seconds ago."""
    keys = [dataclasses.replace(KEY, build_files=f"edit {index}") for index in range(len(ages))]
    for key, age in zip(keys, ages, strict=True):
        with cache.workspace() as workspace:
            entry = cache.add(key, built(workspace)).parent
        then = time.time() - age
        os.utime(entry, (then, then))
    return keys


def found(cache: WheelCache, keys: list[WheelKey]) -> list[bool]:
    return [cache.find(key) is not None for key in keys]


def test_the_last_used_stay_and_the_others_go(tmp_path: Path) -> None:
    cache = WheelCache(tmp_path)
    keys = add_old(cache, 50, 10, 40, 20, 30)
    cache.prune()
    assert found(cache, keys) == [False, True, False, True, True]
    assert len(list(tmp_path.iterdir())) == NUM_KEPT == 3
    cache.prune()
    assert found(cache, keys) == [False, True, False, True, True]


def test_a_wheel_that_was_installed_again_is_not_old(tmp_path: Path) -> None:
    cache = WheelCache(tmp_path)
    keys = add_old(cache, 50, 10, 40, 20)
    cache.mark_used(keys[0])
    cache.prune(num_kept=2)
    assert found(cache, keys) == [True, True, False, False]


def test_a_new_wheel_is_the_last_used(tmp_path: Path) -> None:
    cache = WheelCache(tmp_path)
    keys = add_old(cache, 50, 10)
    with cache.workspace() as workspace:
        wheel = built(workspace)
        os.utime(workspace, (0, 0))
        cache.add(KEY, wheel)
    cache.prune(num_kept=1)
    assert found(cache, [*keys, KEY]) == [False, False, True]


def test_only_wheels_are_pruned(tmp_path: Path) -> None:
    """Not builds that run, nor what somebody else put there; damaged entries are old wheels."""
    cache = WheelCache(tmp_path)
    keys = add_old(cache, 10, 20)
    (tmp_path / keys[1].name / RECORD).unlink()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "mine").mkdir()
    with cache.workspace() as workspace:
        cache.prune(num_kept=0)
        assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", "mine", workspace.name}


def test_what_is_gone_is_no_error(tmp_path: Path) -> None:
    cache = WheelCache(tmp_path)
    cache.mark_used(KEY)
    assert list(tmp_path.iterdir()) == []
    cache.prune()


def test_workspaces_of_killed_builds_are_removed_and_of_running_ones_kept(tmp_path: Path) -> None:
    killed, running, starting = (tmp_path / f".building-{name}" for name in "abc")
    for folder in (killed, running, starting):
        folder.mkdir()
    (killed / "lock").touch()
    with (running / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with WheelCache(tmp_path).workspace() as own:
            left = {path.name for path in tmp_path.iterdir()}
            assert left == {running.name, starting.name, own.name}
    long_ago = time.time() - 3600
    os.utime(starting, (long_ago, long_ago))
    with WheelCache(tmp_path).workspace():
        assert not starting.exists()
