"""Which model drafts for a target: the one that was named, or the best of those on disk.

Every model that could serve is measured once on this machine (`edgespec.forms.trimmer`): what a
guess of it costs, and how often its guesses were what a target said. Both give the speed to expect
with the target's T(r). The best serves if it promises to pay at all.

Measuring takes ten seconds to a minute, and somebody waits for an answer: each start measures one
model, the smallest first, and those that are still unknown do not serve yet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgespec.errors import ChecksumError, EdgeSpecError, ModelFileError
from edgespec.forms.decision import Decision
from edgespec.forms.trimmer import Trimmer
from edgespec.forms.trimming import Tried
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
    target: Model,
    usual_ms: Mapping[int, float],
    pass_ms: Callable[[], Mapping[int, float]],
    store: ModelStore,
    trimmer: Trimmer,
    fits: Callable[[Path], bool],
) -> Choice | None:
    """The best of the models on disk that were measured, or are now; None if none pays.

    `usual_ms` is T(r) of the target, `pass_ms` gives it as it is now. What `fits` refuses is not
    even measured, what is known to be slower than another is not even opened. What cannot serve is
    passed over in silence: nobody asked for it by name.
    """
    speeds = {
        stored.path: _known_speed(stored.path, trimmer, usual_ms)
        for stored in sorted(store.list(), key=lambda stored: stored.size_bytes)
        if stored.path != target.path and stored.size_bytes <= _MOST_SHARE * target.num_bytes
    }
    unknown = (path for path, speed in speeds.items() if speed is None)
    found = (_measured(path, usual_ms, pass_ms, trimmer, fits) for path in unknown)
    best, best_speed = next((each for each in found if each is not None), (None, 0.0))
    known = [(speed, path) for path, speed in speeds.items() if speed is not None]
    for speed, path in sorted(known, key=lambda item: -item[0]):
        if speed >= LEAST_SPEED and speed > best_speed:
            best, best_speed = _measured(path, usual_ms, pass_ms, trimmer, fits) or (
                best,
                best_speed,
            )
    if best is None or best_speed < LEAST_SPEED:
        return None
    return Choice(best, speed=best_speed)


def _known_speed(path: Path, trimmer: Trimmer, usual_ms: Mapping[int, float]) -> float | None:
    """What was found of a model earlier; None where that is still to be found out."""
    try:
        decision = trimmer.decision(path)
    except EdgeSpecError:
        return 0.0
    if decision is None or not decision.is_final:
        return None
    return _speed_for(decision, usual_ms)


def _measured(
    path: Path,
    usual_ms: Mapping[int, float],
    pass_ms: Callable[[], Mapping[int, float]],
    trimmer: Trimmer,
    fits: Callable[[Path], bool],
) -> tuple[Path, float] | None:
    """A model with its speed, measured and trimmed if it was not yet; None if it cannot serve."""
    try:
        if not fits(path):
            return None
        trimmer.trimmed(path, pass_ms)
        decision = trimmer.decision(path)
    except EdgeSpecError:
        return None
    return (path, _speed_for(decision, usual_ms)) if decision is not None else None


def _speed_for(decision: Decision, usual_ms: Mapping[int, float]) -> float:
    """Speed to expect, 0 for a target beside which this drafter could hardly pay.

    A form was weighed beside the first target that it served; another may be much faster itself.
    """
    steady = [
        steady_speed(tried.agreement, tried.token_ms, usual_ms)
        for tried in _chosen(decision)
        if tried.agreement is not None
    ]
    return expected_speed_of(decision) if max(steady, default=1.0) >= 1.0 else 0.0


def _chosen(decision: Decision) -> list[Tried]:
    """What was found of the form that runs."""
    choice = decision.choice
    running = choice.num_kept, choice.type_name
    return [tried for tried in choice.tried if (tried.num_kept, tried.type_name) == running]


def expected_speed_of(decision: Decision) -> float:
    """Speed against plain decoding of the form that was chosen; 1 where it was not measured.

    Where the machine was too busy to measure it gets the benefit of the doubt: it is asked on
    credit, and serves where nothing better is known.
    """
    chosen = [tried.speed for tried in _chosen(decision)]
    return max(chosen, default=1.0 if decision.choice.is_sure else LEAST_SPEED)


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
        if _sha256(path, store, paths) == info.parent_sha256:
            return path
    if existing:
        raise ChecksumError(
            f"{existing[0]} has changed since {trimmed.name} was trimmed from it", "trim it again"
        )
    raise ModelFileError(
        f"{trimmed} was trimmed from {info.parent_name or 'a model'}, which is not here",
        f"put that into {trimmed.parent}, or trim again",
    )


def _sha256(path: Path, store: FactStore, paths: Paths) -> str:
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
