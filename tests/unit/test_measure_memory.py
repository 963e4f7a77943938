"""What is left of memory where control groups limit it: version 1, version 2, nested, none."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from edgespec.machine.available import available_memory
from edgespec.machine.memory_need import MemoryNeed

MIB = 1 << 20


def group_2(
    folder: Path, limit: int | str, used: int, inactive_file: int = 0, active_file: int = 0
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(
        f"anon {used}\nfile 7\ninactive_file {inactive_file}\nactive_file {active_file}\n"
    )


def group_1(folder: Path, limit: int, used: int, cached: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
    (folder / "memory.usage_in_bytes").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(
        f"cache {cached}\ninactive_file 1\nactive_file 1\ntotal_inactive_file {cached - MIB}\n"
        f"total_active_file {MIB}\n"
    )


def member_of(root: Path, *lines: str) -> None:
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "self" / "cgroup").write_text("".join(f"{line}\n" for line in lines))


def test_without_groups_the_machine_counts(tmp_path: Path) -> None:
    found = available_memory(tmp_path)
    assert found is not None
    assert 0 < found <= psutil.virtual_memory().total


def test_a_limit_less_what_is_used(tmp_path: Path) -> None:
    member_of(tmp_path, "0::/user/app")
    group_2(tmp_path / "sys/fs/cgroup/user/app", 10 * MIB, 6 * MIB)
    assert available_memory(tmp_path) == 4 * MIB


def test_cached_files_can_be_dropped(tmp_path: Path) -> None:
    member_of(tmp_path, "0::/app")
    group_2(tmp_path / "sys/fs/cgroup/app", 10 * MIB, 6 * MIB, 2 * MIB, MIB)
    assert available_memory(tmp_path) == 7 * MIB


def test_the_tightest_group_around_it_counts(tmp_path: Path) -> None:
    member_of(tmp_path, "0::/outer/inner")
    group_2(tmp_path / "sys/fs/cgroup/outer/inner", "max", 6 * MIB)
    group_2(tmp_path / "sys/fs/cgroup/outer", 9 * MIB, 6 * MIB)
    group_2(tmp_path / "sys/fs/cgroup", 100 * MIB, 6 * MIB)
    assert available_memory(tmp_path) == 3 * MIB


def test_a_container_that_shows_only_its_own_group(tmp_path: Path) -> None:
    """The path is that of the host, the files are at the root of the mount."""
    member_of(tmp_path, "0::/docker/0123456789")
    group_2(tmp_path / "sys/fs/cgroup", 8 * MIB, 3 * MIB)
    assert available_memory(tmp_path) == 5 * MIB


def test_groups_of_version_1(tmp_path: Path) -> None:
    member_of(tmp_path, "9:name=systemd:/", "4:memory:/job:with:colons", "3:cpuset:/", "0::/")
    group_1(tmp_path / "sys/fs/cgroup/memory/job:with:colons", 10 * MIB, 9 * MIB, 3 * MIB)
    assert available_memory(tmp_path) == 4 * MIB


def test_without_a_limit_the_machine_counts(tmp_path: Path) -> None:
    member_of(tmp_path, "0::/app", "4:memory:/app")
    group_2(tmp_path / "sys/fs/cgroup/app", "max", 6 * MIB)
    group_1(tmp_path / "sys/fs/cgroup/memory/app", 0x7FFFFFFFFFFFF000, 9 * MIB, 3 * MIB)
    found = available_memory(tmp_path)
    assert found is not None
    assert 10 * MIB < found <= psutil.virtual_memory().total


@pytest.mark.parametrize("name", ["memory.max", "memory.current", "memory.stat"])
def test_a_file_that_is_missing_or_odd_limits_nothing(tmp_path: Path, name: str) -> None:
    member_of(tmp_path, "0::/app")
    folder = tmp_path / "sys/fs/cgroup/app"
    group_2(folder, 10 * MIB, 6 * MIB)
    (folder / name).unlink()
    assert (available_memory(tmp_path) or 0) > 10 * MIB


def test_more_used_than_allowed_leaves_nothing(tmp_path: Path) -> None:
    member_of(tmp_path, "0::/app")
    group_2(tmp_path / "sys/fs/cgroup/app", 10 * MIB, 11 * MIB)
    assert available_memory(tmp_path) == 0


def test_a_need_is_the_sum_of_its_parts() -> None:
    assert MemoryNeed(weights=1000, kv_cache=200, compute=30, vocabulary=4).total == 1234
