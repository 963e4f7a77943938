"""From what a user types to a model: a known name, a local GGUF file, or a file on the Hub.

The order of the rules: an exact known name; `hf:owner/repo:file`; anything that looks like a path
(a separator, a leading `~` or `.`, the suffix `.gguf`) or is a file here; else an error that names
the closest known models. `str()` of a reference is a text that resolves to the same reference.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgespec.errors import UnknownModelError
from edgespec.models.registry import KNOWN_MODELS, HubFile, KnownModel
from edgespec.paths import Paths

_HUB_PREFIX = "hf:"
_HUB_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?")
_LOOKS_LIKE_HUB = re.compile(r"[\w.-]+/[\w.-]+:.+\.gguf")


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A GGUF file outside the registry; `path` has no leading `~` and may be relative."""

    path: Path

    def __str__(self) -> str:
        text = str(self.path)
        return text if self.path.is_absolute() else f".{os.sep}{text}"


Reference = KnownModel | HubFile | LocalFile


def resolve(ref: str, known: Mapping[str, KnownModel] = KNOWN_MODELS) -> Reference:
    """What `ref` names; nothing is looked up on disk but whether a bare word is a file here.

    Raises UnknownModelError for a malformed Hub reference or an unknown name.

    >>> resolve("hf:acme/tiny:tiny.gguf")
    HubFile(repo='acme/tiny', file='tiny.gguf')
    """
    if ref in known:
        return known[ref]
    if ref.startswith(_HUB_PREFIX):
        return _hub_file(ref)
    if "\0" in ref or not ref:
        raise UnknownModelError("an empty name is no model", _choices(known))
    path = _local_path(ref)
    if path is not None:
        return LocalFile(path)
    close = difflib.get_close_matches(ref.lower(), known, n=3, cutoff=0.5)
    if close:
        raise UnknownModelError(
            f"no model is called {ref!r}", f"did you mean {' or '.join(close)}?"
        )
    raise UnknownModelError(f"no model is called {ref!r}", _choices(known))


def stored_path(ref: KnownModel | HubFile, folder: Path) -> Path:
    """Where the model folder keeps `ref`, whether it is there or not."""
    if isinstance(ref, KnownModel):
        return folder / f"{ref.name}.gguf"
    return folder.joinpath("hf", *ref.repo.split("/"), *ref.file.split("/"))


def locate(ref: str, paths: Paths, known: Mapping[str, KnownModel] = KNOWN_MODELS) -> Path | None:
    """The model's file if it is on disk, else None; raises UnknownModelError as `resolve`."""
    target = resolve(ref, known)
    path = target.path if isinstance(target, LocalFile) else stored_path(target, paths.models)
    return path if path.is_file() else None


def download_stem(ref: KnownModel | HubFile) -> str:
    """A file-name stem for unfinished downloads of `ref`: readable, and different for each."""
    readable = ref.name if isinstance(ref, KnownModel) else PurePosixPath(ref.file).stem
    return f"{readable[:80]}-{hashlib.sha256(str(ref).encode()).hexdigest()[:12]}"


def _hub_file(ref: str) -> HubFile:
    repo, colon, file = ref.removeprefix(_HUB_PREFIX).partition(":")
    names = repo.split("/")
    parts = file.split("/")
    repo_is_sound = len(names) == 2 and all(_HUB_NAME.fullmatch(name) for name in names)
    file_is_sound = file.endswith(".gguf") and not any(
        part in {"", ".", ".."} or "\\" in part or not part.isprintable() for part in parts
    )
    if not (colon and repo_is_sound and file_is_sound):
        raise UnknownModelError(
            f"{ref!r} is not a file on the Hub", "write hf:OWNER/REPO:FILE.gguf"
        )
    return HubFile(repo, file)


def _local_path(ref: str) -> Path | None:
    """`ref` as a path if it looks like one or is a file here, else None."""
    separators = {os.sep, os.altsep or os.sep}
    looks_like_path = any(sep in ref for sep in separators) or ref.startswith(("~", "."))
    path = Path(ref)
    if not (looks_like_path or ref.endswith(".gguf") or path.is_file()):
        return None
    if _LOOKS_LIKE_HUB.fullmatch(ref) and not path.exists():
        raise UnknownModelError(f"{ref!r} is not a file here", f"for the Hub write hf:{ref}")
    if not ref.startswith("~"):
        return path
    try:
        return path.expanduser()
    except RuntimeError as error:  # no such user, or no home
        raise UnknownModelError(f"{ref!r} names no home folder", "write the whole path") from error


def _choices(known: Mapping[str, KnownModel]) -> str:
    return f"give one of {', '.join(known)}, a path to a .gguf file, or hf:OWNER/REPO:FILE.gguf"
