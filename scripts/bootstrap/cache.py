"""The cache of built wheels, outside any clone: one folder a key, complete or absent.

A wheel is built in a `.building-*` folder of the cache and renamed into place, so that what can be
found is whole. A lock in each such folder tells a build that runs from one that was killed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from bootstrap.recipes import Recipe

RECORD = "build.json"
_PREFIX = ".building-"
_LOCK = "lock"
_UNLOCKED_SECONDS = 600.0
_ENTRY = re.compile(r"\d.*-[0-9a-f]{16}")

NUM_KEPT = 3
"""Wheels that stay when another is built: of a second clone, a second compiler, the last edit."""

BUILD_VARIABLES = ("CMAKE_ARGS", "CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS")
"""Variables of the user's environment that reach the build, and so are part of the key."""


@dataclass(frozen=True, slots=True)
class WheelKey:
    """Everything that the bytes of a built wheel depend on."""

    llama_version: str
    python_tag: str
    platform: str
    cpu_id: str
    recipe: Recipe
    build_files: str
    variables: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """Folder name: readable in front, unique by the hash behind."""
        facts = asdict(self)
        for path in ("cc", "cxx"):  # where a compiler lies says nothing about what it builds
            del facts["recipe"][path]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
        return f"{self.llama_version}-{self.recipe.compiler}{self.recipe.version}-{digest}"


def build_variables(env: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The variables of `env` that reach the build."""
    return tuple((name, env[name]) for name in BUILD_VARIABLES if env.get(name))


def cache_folder(env: Mapping[str, str], system: str, home: Path) -> Path:
    """The user's folder of wheels; `EDGESPEC_HOME`, if set and not empty, holds everything."""
    if env.get("EDGESPEC_HOME"):
        return Path(env["EDGESPEC_HOME"]).expanduser().absolute() / "cache" / "wheels"
    if system == "Darwin":
        return home / "Library" / "Caches" / "edgespec" / "wheels"
    base = Path(env.get("XDG_CACHE_HOME") or "")
    return (base if base.is_absolute() else home / ".cache") / "edgespec" / "wheels"


class WheelCache:
    """Wheels by key below one folder; the folder is made when first written to."""

    def __init__(self, folder: Path) -> None:
        """`folder` may be shared by several clones and processes."""
        self._folder = folder

    def find(self, key: WheelKey) -> Path | None:
        """The wheel built for `key`, or None."""
        entry = self._folder / key.name
        wheels = sorted(entry.glob("*.whl"))
        return wheels[0] if wheels and (entry / RECORD).is_file() else None

    def record(self, key: WheelKey) -> dict[str, object]:
        """How the wheel of `key` was built; raises OSError if there is none."""
        record: dict[str, object] = json.loads((self._folder / key.name / RECORD).read_text())
        return record

    def add(self, key: WheelKey, wheel: Path) -> Path:
        """Move `wheel`, built in a workspace of this cache, to its place and return that."""
        entry = wheel.parent / key.name
        entry.mkdir()
        wheel.rename(entry / wheel.name)
        (entry / RECORD).write_text(json.dumps(describe(key), indent=2) + "\n", encoding="utf-8")
        if self.find(key) is None:
            self.drop(key)  # what may be left of a damaged entry
        # Another process may add the same key in this moment: its wheel is as good.
        with contextlib.suppress(OSError):
            entry.rename(self._folder / key.name)
        found = self.find(key)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "no wheel after storing it", str(self._folder))
        self.mark_used(key)
        return found

    def drop(self, key: WheelKey) -> None:
        """Forget the wheel of `key`, if there is one."""
        shutil.rmtree(self._folder / key.name, ignore_errors=True)

    def mark_used(self, key: WheelKey) -> None:
        """Note that the wheel of `key` was installed now, which keeps it from being pruned."""
        with contextlib.suppress(OSError):  # removed in this moment, or a cache only to be read
            os.utime(self._folder / key.name)

    def prune(self, num_kept: int = NUM_KEPT) -> None:
        """Remove all wheels but the `num_kept` last used; what cannot be removed stays."""
        entries = [path for path in self._folder.iterdir() if _ENTRY.fullmatch(path.name)]
        for entry in sorted(entries, key=_modified, reverse=True)[num_kept:]:
            shutil.rmtree(entry, ignore_errors=True)

    @contextlib.contextmanager
    def workspace(self) -> Iterator[Path]:
        """A folder to build in, removed at the end; removes those of killed builds first."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for stale in self._folder.glob(_PREFIX + "*"):
            if not _in_use(stale):
                shutil.rmtree(stale, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._folder))
        try:
            with (folder / _LOCK).open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _modified(path: Path) -> float:
    """Time of the last change; long ago if another process has just removed it."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _in_use(workspace: Path) -> bool:
    """True while the process that made `workspace` lives."""
    try:
        with (workspace / _LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
    except FileNotFoundError:
        return workspace.exists() and time.time() - workspace.stat().st_mtime < _UNLOCKED_SECONDS
    except OSError:
        return True


def describe(key: WheelKey) -> dict[str, object]:
    """The record of a build, as `edgespec doctor` shows it."""
    return {
        "llama_cpp_python": key.llama_version,
        "compiler": key.recipe.compiler,
        "version": key.recipe.version,
        "label": key.recipe.label,
        "flags": list(key.recipe.flags),
        "cmake_args": list(key.recipe.cmake_args),
        "variables": dict(key.variables),
        "platform": key.platform,
        "cpu_id": key.cpu_id,
        "wheel_key": key.name,
    }
