"""Which model drafts for a target: the one that was named, or the best of those on disk.

Every model that could serve is measured once on this machine, in idle time
(`edgespec.runtime.selection`): what a guess of it costs, and how often its guesses were what a
target said. Both give the speed to expect with the target's T(r). The best serves if it promises to
pay at all; what is not known yet does not serve.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgespec.errors import ChecksumError, EdgeSpecError, ModelFileError
from edgespec.forms.trimmer import Trimmer
from edgespec.forms.trimming import Decision
from edgespec.forms.weighing import steady_speed
from edgespec.gguf.trim import file_sha256, is_trimmed, read_trim_info
from edgespec.llama.model import Model
from edgespec.machine.facts import file_fingerprint
from edgespec.models.gguf_check import check_gguf
from edgespec.models.store import ModelStore
from edgespec.paths import Paths
from edgespec.protocols import FactStore

LEAST_SPEED = 1.03
"""A drafter that promises less than this many times plain decoding is not worth its memory."""

_MOST_SHARE = 0.6
"""A drafter of more than this share of the target's bytes costs too much time to be measured."""

_SHA256 = "sha256"


@dataclass(frozen=True, slots=True)
class Choice:
    """The model that drafts, and why: it was named, or it promises `speed` times plain decoding.

    `trimmed` is the file that somebody named, where that is a trimmed form of `whole`.
    """

    whole: Path
    trimmed: Path | None = None
    speed: float | None = None


def named_drafter(path: Path, store: FactStore, paths: Paths) -> Choice:
    """The model at `path`; where that is a trimmed one, with the model that it was made from.

    That reads the text and has the embeddings of every token. Raises ModelFileError for what is no
    model, or a trimmed one without its parent, ChecksumError if the parent has changed.
    """
    check_gguf(path)
    if is_trimmed(path):
        return Choice(parent_of(path, store, paths), path)
    return Choice(path)


def best_drafter(
    candidates: Sequence[Path],
    pass_ms: Mapping[int, float],
    trimmer: Trimmer,
    fits: Callable[[Path], bool],
) -> Choice | None:
    """The best of `candidates` by what was found of them; None if none pays, or is known yet.

    `pass_ms` is T(r) of the target. What is known to be slower than another is not even opened;
    what `fits` refuses, or cannot be read, is passed over.
    """
    speeds = [(_known_speed(path, pass_ms, trimmer), path) for path in candidates]
    for speed, path in sorted(speeds, key=lambda item: -item[0]):
        if speed < LEAST_SPEED:
            return None
        with contextlib.suppress(EdgeSpecError):  # nobody asked for it by name
            if fits(path):
                return Choice(path, speed=speed)
    return None


def candidates_for(target: Model, store: ModelStore) -> list[Path]:
    """The models on disk that could draft for a target, the smallest first."""
    return [
        stored.path
        for stored in sorted(store.list(), key=lambda stored: stored.size_bytes)
        if stored.path != target.path and stored.size_bytes <= _MOST_SHARE * target.num_bytes
    ]


def _known_speed(path: Path, pass_ms: Mapping[int, float], trimmer: Trimmer) -> float:
    """The speed to expect of a model by what was found of it; 0 where that is not known yet."""
    try:
        decision = trimmer.decision(path)
    except EdgeSpecError:
        return 0.0
    if decision is None or not decision.is_current:
        return 0.0
    return _speed_for(decision, pass_ms)


def _speed_for(decision: Decision, usual_ms: Mapping[int, float]) -> float:
    """Speed to expect, 0 for a target beside which this drafter could hardly pay.

    A form was weighed beside the first target that it served; another may be much faster itself.
    """
    steady = [
        steady_speed(tried.agreement, tried.token_ms, usual_ms)
        for tried in decision.chosen
        if tried.agreement is not None
    ]
    return expected_speed_of(decision) if max(steady, default=1.0) >= 1.0 else 0.0


def expected_speed_of(decision: Decision) -> float:
    """Speed against plain decoding of the form that was chosen; 1 where it was not measured.

    Where the machine was too busy to measure it gets the benefit of the doubt: it is asked on
    credit, and serves where nothing better is known.
    """
    chosen = [tried.speed for tried in decision.chosen]
    return max(chosen, default=1.0 if decision.is_sure else LEAST_SPEED)


def parent_of(trimmed: Path, store: FactStore, paths: Paths) -> Path:
    """The model that a trimmed file was made from: beside it, or in the model folder.

    Raises ModelFileError if there is none of its name, ChecksumError if it is another one now.
    """
    info = read_trim_info(trimmed)
    assert info is not None
    name = Path(info.parent_name).name
    candidates = (trimmed.parent / name, *sorted(paths.models.rglob("*.gguf")))
    existing = [path for path in candidates if path.name == name and path.is_file()]
    for path in existing:
        if sha256_of(path, store, paths) == info.parent_sha256:
            return path
    if existing:
        raise ChecksumError(
            f"{existing[0]} has changed since {trimmed.name} was trimmed from it", "trim it again"
        )
    raise ModelFileError(
        f"{trimmed} was trimmed from {info.parent_name or 'a model'}, which is not here",
        f"put that into {trimmed.parent}, or trim again",
    )


def sha256_of(path: Path, store: FactStore, paths: Paths) -> str:
    """SHA-256 of a model, from the record of its pull or an earlier computation if it holds."""
    if path.is_relative_to(paths.models):
        stored = ModelStore(paths).find(str(path))
        if stored is not None and stored.verified and stored.sha256 is not None:
            return stored.sha256
    key = f"{file_fingerprint(path)}|{path.stat().st_mtime_ns}"
    known = (store.get(_SHA256, key) or {}).get("sha256")
    if isinstance(known, str):
        return known
    digest = file_sha256(path)
    store.put(_SHA256, key, {"sha256": digest})
    return digest
