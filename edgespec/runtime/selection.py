"""Which model drafts, in which form, and whether it fits: now, and when more is known.

    LoadRequest -> Choice -> Form -> Fit

Nothing is measured or made here. What was not weighed yet is told by `unsettled`, and weighed in
idle time (`FormSearch`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

from edgespec.errors import EdgeSpecError
from edgespec.forms.trimmer import Trimmer
from edgespec.models.gguf_check import check_gguf
from edgespec.models.store import ModelStore
from edgespec.models.trials import Trials
from edgespec.pauses import Pause
from edgespec.reports import is_progress
from edgespec.runtime.choice import Choice, best_drafter, candidates_for, named_drafter
from edgespec.runtime.fit import Fit, MemoryRoom
from edgespec.runtime.form import Form, Trainings, form_of
from edgespec.runtime.request import LoadRequest
from edgespec.runtime.target import Home, OpenTarget


class Selection:
    """Goes through the stages for one request and one open target."""

    def __init__(
        self,
        request: LoadRequest,
        target: OpenTarget,
        home: Home,
        num_free: int | None,
        trainings: Trainings,
    ) -> None:
        """`num_free` are the bytes that were free before the target was loaded; None: unknown.

        Drafters run with what they were taught by `trainings`.
        """
        self._request = request
        self._target = target
        self._home = home
        self._trainings = trainings
        model = target.model

        def told(line: str) -> None:  # nobody waits for it, so nobody asks how far it is
            if not is_progress(line):
                home.report(line)

        self._room = MemoryRoom(num_free, model, target.context, target.facts.max_rows)
        self.trimmer = Trimmer(
            home.paths.trimmed,
            home.facts,
            target.machine,
            model.options,
            told,
            follows=request.remember,
        )
        self._refused: set[Path] = set()
        self.trials = Trials(home.paths.trials)

    def fit(self, pass_ms: Mapping[int, float], pause: Pause | None = None) -> Fit:
        """What runs by what is known now; `pass_ms` is T(r) of the target.

        Without a `pause` somebody waits, and what takes seconds is left out. A named model that
        cannot serve raises ModelFileError or ChecksumError.
        """
        choice = self._choice(pass_ms)
        if choice is None:
            return self._room.fit(None)
        form = form_of(choice, self.trimmer if self._request.trim else None)
        return self._room.fit(self._trainings.of(form, pause))

    def unsettled(self) -> list[Path]:
        """The models that are to be weighed, or whose form is to be made, the smallest first."""
        named = self._request.drafter_path
        if named is None:
            paths = self._candidates()
        else:
            choice = named_drafter(named, self._home.facts, self._home.paths)
            is_open = self._request.trim and choice.trimmed is None and self._is_smaller(named)
            paths = [named] if is_open else []
        return [path for path in paths if self._is_unsettled(path)]

    def _choice(self, pass_ms: Mapping[int, float]) -> Choice | None:
        home, named = self._home, self._request.drafter_path
        if named is not None:
            choice = named_drafter(named, home.facts, home.paths)
            return choice if self._fits(choice.whole) else None
        return best_drafter(self._candidates(), pass_ms, self.trimmer, self._fits)

    def _candidates(self) -> list[Path]:
        """The models on disk that could draft, but for those that killed the engine before."""
        found = candidates_for(self._target.model, ModelStore(self._home.paths))
        return [path for path in found if not self.trials.is_marked(path)]

    def _fits(self, whole: Path) -> bool:
        """Whether there is room; if not, a line tells so, once. Raises ModelFileError."""
        check_gguf(whole)
        fit = self._room.fit(Form(whole))
        if not fit.is_room and whole not in self._refused:
            self._refused.add(whole)
            self._home.report(f"{whole.stem} does not draft: {fit.describe()}")
        return fit.is_room

    def _is_unsettled(self, path: Path) -> bool:
        with contextlib.suppress(EdgeSpecError):  # nobody can tell, and nobody asked
            return self.trimmer.settled(path) is None and self._fits(path)
        return False

    def _is_smaller(self, drafter: Path) -> bool:
        """A drafter as large as its target is refused: not worth the time."""
        return drafter.stat().st_size < self._target.model.path.stat().st_size


class FormSearch:
    """Weighs drafters and makes their forms in idle time, and has the best one draft from then on.

    Implements `edgespec.runtime.idle.IdleTask`.
    """

    def __init__(
        self,
        selection: Selection,
        pass_ms: Callable[[], Mapping[int, float]],
        serving: Form | None,
        exchange: Callable[[Form, Pause], bool],
    ) -> None:
        """`pass_ms` gives T(r) of the target as it is now.

        `exchange` has another form draft from the next answer on, False if that is not to be now.
        """
        self._selection = selection
        self._pass_ms = pass_ms
        self._serving = serving
        self._exchange = exchange
        self._unsettled: list[Path] = []
        self._failed: set[Path] = set()
        self._has_learned = False

    @property
    def name(self) -> str:
        """What is done no more after it failed."""
        if not self._unsettled:
            return "forms of drafters are weighed"
        return f"{self._unsettled[0].stem} is weighed as a drafter"

    def run(self, pause: Pause) -> bool:
        """Weigh the next model; see `IdleTask.run`."""
        pause()
        if not self._unsettled:
            unsettled = self._selection.unsettled()
            self._unsettled = [path for path in unsettled if path not in self._failed]
        if self._unsettled:
            path, trimmer = self._unsettled[0], self._selection.trimmer
            with self._selection.trials.loading(path):
                trimmer.trimmed(path, self._pass_ms, pause)
            if trimmer.decision(path) is None:
                self._failed.add(path)
            del self._unsettled[0]
        form = self._selection.fit(self._pass_ms(), pause).form
        if form is not None and self._is_better(form):
            with self._selection.trials.loading(form.whole):
                is_exchanged = self._exchange(form, pause)
            if is_exchanged:
                self._serving, self._has_learned = form, False
        return bool(self._unsettled)

    def serve_learned(self, pause: Pause) -> None:
        """The model that drafts learned by itself: have that draft, now or when there is time."""
        self._has_learned = True
        self.run(pause)

    def _is_better(self, form: Form) -> bool:
        """Whether it is of another model, or further made; rows follow the user elsewhere."""
        now = self._serving
        if now is None or now.whole != form.whole:
            return True
        if self._has_learned and form.merged is not None:
            return True
        if now.merged is not None and not now.merged.exists():  # forgotten, or merged anew
            return form.merged != now.merged
        made = [(each.trimmed is not None, each.merged is not None) for each in (now, form)]
        return made[0] < made[1]
