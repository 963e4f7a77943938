"""The model folder: what is in it, and the only ways in and out of it.

A known model is `NAME.gguf`; a file of the Hub is `hf/OWNER/REPO/FILE`; any other `.gguf` in the
folder is the user's own. Each may have a record beside it (see records). Files come in by a rename
of a whole, checked file, so whatever bears the suffix `.gguf` is never half-written.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgespec.errors import BusyError, ChecksumError, UnknownModelError, UsageError
from edgespec.files.scratch import taking_the_place_of
from edgespec.models.disk import disk_errors, require_space, sync_folder
from edgespec.models.part import Fetched, file_sha256
from edgespec.models.records import is_verified, read_record, record_path, write_record
from edgespec.models.registry import KNOWN_MODELS, HubFile, KnownModel
from edgespec.models.resolve import LocalFile, download_stem, resolve, stored_path
from edgespec.paths import Paths

if TYPE_CHECKING:
    from filelock import BaseFileLock


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A file in the model folder; `name` is a reference that `--model` and `pull` understand.

    `sha256` and `source` ("hub", "packages", "local") are from the record, None without one.
    `verified`: the file has not changed since that SHA-256 was computed.
    """

    name: str
    path: Path
    size_bytes: int
    verified: bool
    sha256: str | None
    source: str | None


class ModelStore:
    """The model folder of `paths`, and the unfinished downloads that belong to it."""

    def __init__(self, paths: Paths, known: Mapping[str, KnownModel] = KNOWN_MODELS) -> None:
        self._paths = paths
        self._known = known

    def list(self) -> tuple[StoredModel, ...]:
        """Every `.gguf` file in the folder: known models first, then by path."""
        folder = self._paths.models
        known_paths = [stored_path(model, folder) for model in self._known.values()]
        found = sorted(path for path in folder.rglob("*.gguf") if path.is_file())
        ordered = [path for path in known_paths if path in found]
        return tuple(self._describe(p) for p in [*ordered, *(f for f in found if f not in ordered)])

    def find(self, ref: str) -> StoredModel | None:
        """The stored file that `ref` names, or None; a path may be relative to the folder.

        Raises UnknownModelError as `resolve`, UsageError for a file outside the model folder.
        """
        target = resolve(ref, self._known)
        if not isinstance(target, LocalFile):
            path = stored_path(target, self._paths.models)
            return self._describe(path) if path.is_file() else None
        folder = self._paths.models.resolve()
        for path in (folder / target.path, target.path):
            if path.is_file() and _in_place(path).is_relative_to(folder):
                return self._describe(path)
        if target.path.is_file():
            raise UsageError(f"{target} is not in the model folder {folder}", "handle it yourself")
        return None

    def add(self, ref: KnownModel | HubFile, fetched: Fetched, source: str) -> StoredModel:
        """Move a whole, checked file into the folder, record it and drop its leftovers.

        Raises StorageError; the folder then is as it was.
        """
        path = stored_path(ref, self._paths.models)
        self._paths.ensure(path.parent)
        with disk_errors(path.parent, fetched.path.stat().st_size):
            _move(fetched.path, path)
            sync_folder(path.parent)
        write_record(path, fetched.sha256, source)
        self.drop_downloads(ref)
        return self._describe(path)

    def remove(self, ref: str) -> int:
        """Delete a model, its record and its unfinished downloads; returns the bytes freed.

        Raises UnknownModelError when there is nothing of it on disk, BusyError while it is pulled.
        """
        import filelock

        target = resolve(ref, self._known)
        if isinstance(target, LocalFile):
            return self._delete(ref, None)
        lock = self.lock(target)
        try:
            with lock.acquire(timeout=0):
                return self._delete(ref, target)
        except filelock.Timeout as error:
            raise BusyError(f"{ref} is being pulled", "stop that first") from error

    def verify(self, ref: str, on_bytes: Callable[[int], None] | None = None) -> StoredModel:
        """Hash the file anew and compare; without anything to compare with, record what was found.

        Raises ChecksumError (the record is then dropped), UnknownModelError when it is not on disk.
        """
        stored = self._on_disk(ref)
        target = resolve(ref, self._known)
        wanted = target.sha256 if isinstance(target, KnownModel) else stored.sha256
        digest = file_sha256(stored.path, on_bytes)
        if wanted not in (None, digest):
            record_path(stored.path).unlink(missing_ok=True)
            raise ChecksumError(
                f"{stored.path} has SHA-256 {digest} instead of {wanted}", "pull it again"
            )
        write_record(stored.path, digest, stored.source or "local")
        return self._describe(stored.path)

    def lock(self, ref: KnownModel | HubFile) -> BaseFileLock:
        """The lock that whoever fetches or removes `ref` holds, across processes."""
        import filelock  # loads asyncio; what only looks into the folder needs neither

        folder = self._paths.ensure(self._paths.downloads)
        return filelock.FileLock(folder / f"{download_stem(ref)}.lock")

    def drop_downloads(self, ref: KnownModel | HubFile) -> int:
        """Delete what unfinished downloads of `ref` left; returns the bytes freed."""
        freed = 0
        for path in self._paths.downloads.glob(f"{download_stem(ref)}.*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.suffix != ".lock":
                freed += path.stat().st_size
                path.unlink(missing_ok=True)
        return freed

    def _delete(self, ref: str, target: KnownModel | HubFile | None) -> int:
        freed = self.drop_downloads(target) if target is not None else 0
        stored = self.find(ref)
        if stored is not None:
            freed += stored.size_bytes
            with disk_errors(stored.path.parent):
                stored.path.unlink()
                record_path(stored.path).unlink(missing_ok=True)
        elif not freed:
            raise self._absent(ref)
        return freed

    def _on_disk(self, ref: str) -> StoredModel:
        stored = self.find(ref)
        if stored is None:
            raise self._absent(ref)
        return stored

    def _absent(self, ref: str) -> UnknownModelError:
        return UnknownModelError(
            f"{ref} is not in the model folder {self._paths.models}",
            "`edgespec models` lists what is",
        )

    def _describe(self, path: Path) -> StoredModel:
        record = read_record(path)
        return StoredModel(
            name=self._name(path),
            path=path,
            size_bytes=path.stat().st_size,
            verified=is_verified(path),
            sha256=record.sha256 if record else None,
            source=record.source if record else None,
        )

    def _name(self, path: Path) -> str:
        """The reference that leads to `path`."""
        inside = _in_place(path).relative_to(self._paths.models.resolve())
        if len(inside.parts) == 1 and inside.stem in self._known:
            return inside.stem
        if len(inside.parts) > 3 and inside.parts[0] == "hf":
            _, owner, repo, *file = inside.parts
            return str(HubFile(f"{owner}/{repo}", "/".join(file)))
        return str(path)


def _in_place(path: Path) -> Path:
    """Where the file itself is, though it be a link to another: only its folder is resolved."""
    return path.parent.resolve() / path.name


def _move(source: Path, destination: Path) -> None:
    """Rename, or where the two are on different disks copy under another name and rename that."""
    try:
        source.replace(destination)
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    require_space(destination.parent, source.stat().st_size)
    with taking_the_place_of(destination) as scratch:
        shutil.copy(source, scratch)  # with its mode
    source.unlink()
