"""Which of the models on disk drafts best for a target: by measured cost and agreement.

Every model that could serve is measured once on this machine (`edgespec.forms.trimmer`): what a
guess of it costs, and how often its guesses were what a target said. Both give the speed to expect
with the target's T(r). The best serves if it promises to pay at all.

Measuring takes ten seconds to a minute, and somebody waits for an answer: each start measures one
model, the smallest first, and those that are still unknown do not serve yet.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgespec.errors import EdgeSpecError
from edgespec.forms.form import Form
from edgespec.forms.trimmer import Trimmer
from edgespec.forms.trimming import Tried
from edgespec.forms.weighing import steady_speed
from edgespec.llama.model import Model
from edgespec.models.store import ModelStore
from edgespec.models.trials import Trials
from edgespec.runtime.request import DrafterFiles

LEAST_SPEED = 1.03
"""A drafter that promises less than this many times plain decoding is not worth its memory."""

_MOST_SHARE = 0.6
"""A drafter of more than this share of the target's bytes costs too much time to be measured."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model on disk, the file that runs in its place (None: itself), and its expected speed."""

    whole: Path
    trimmed: Path | None
    speed: float


def best_drafter(
    target: Model,
    usual_ms: Mapping[int, float],
    pass_ms: Callable[[], Mapping[int, float]],
    store: ModelStore,
    trials: Trials,
    trimmer: Trimmer,
    fits: Callable[[DrafterFiles], bool],
) -> DrafterFiles | None:
    """The best of the models on disk that were measured, or are now; None if none pays.

    `usual_ms` is T(r) of the target, `pass_ms` gives it as it is now. What `fits` refuses is not
    even measured, what is known to be slower than another is not even opened. What cannot serve, or
    killed the engine before, is passed over in silence: nobody asked for it by name.
    """
    if not target.can_roll_back:
        return None
    speeds = {
        stored.path: _known_speed(stored.path, trimmer, usual_ms)
        for stored in sorted(store.list(), key=lambda stored: stored.size_bytes)
        if stored.path != target.path and stored.size_bytes <= _MOST_SHARE * target.num_bytes
    }
    measured = functools.partial(_measured, usual_ms, pass_ms, trials, trimmer, fits)
    unknown = (path for path, speed in speeds.items() if speed is None)
    found = map(measured, unknown)
    best = next((candidate for candidate in found if candidate is not None), None)
    known = [(speed, path) for path, speed in speeds.items() if speed is not None]
    for speed, path in sorted(known, key=lambda item: -item[0]):
        if speed >= LEAST_SPEED and (best is None or speed > best.speed):
            best = measured(path) or best
    if best is None or best.speed < LEAST_SPEED:
        return None
    return DrafterFiles(best.whole, best.trimmed)


def _known_speed(path: Path, trimmer: Trimmer, usual_ms: Mapping[int, float]) -> float | None:
    """What was found of a model earlier; None where that is still to be found out."""
    try:
        form = trimmer.form(path)
    except EdgeSpecError:
        return 0.0
    return _speed_for(form, usual_ms) if form is not None and form.is_final else None


def _measured(
    usual_ms: Mapping[int, float],
    pass_ms: Callable[[], Mapping[int, float]],
    trials: Trials,
    trimmer: Trimmer,
    fits: Callable[[DrafterFiles], bool],
    path: Path,
) -> Candidate | None:
    try:
        trials.begin(path)
        if not fits(DrafterFiles(path)):
            return None
        trimmed = trimmer.trimmed(path, pass_ms)
        form = trimmer.form(path)
    except EdgeSpecError:
        return None
    return Candidate(path, trimmed, _speed_for(form, usual_ms)) if form is not None else None


def _speed_for(form: Form, usual_ms: Mapping[int, float]) -> float:
    """Speed to expect, 0 for a target beside which this drafter could hardly pay.

    A form was weighed beside the first target that it served; another may be much faster itself.
    """
    steady = [
        steady_speed(tried.agreement, tried.token_ms, usual_ms)
        for tried in _chosen(form)
        if tried.agreement is not None
    ]
    return expected_speed_of(form) if max(steady, default=1.0) >= 1.0 else 0.0


def _chosen(form: Form) -> list[Tried]:
    """What was found of the form that runs."""
    choice = form.choice
    running = choice.num_kept, choice.type_name
    return [tried for tried in choice.tried if (tried.num_kept, tried.type_name) == running]


def expected_speed_of(form: Form) -> float:
    """Speed against plain decoding of the form that was chosen; 1 where it was not measured.

    Where the machine was too busy to measure it gets the benefit of the doubt: it is asked on
    credit, and serves where nothing better is known.
    """
    chosen = [tried.speed for tried in _chosen(form)]
    return max(chosen, default=1.0 if form.choice.is_sure else LEAST_SPEED)
