"""Which drafters serve a target, and how they are built and remembered.

Every target that can roll back gets the context drafter, that of forced tokens, and the database
drafter where there is a token database; a model drafts beside them if one is asked for or found.
What a drafter learned is kept under its own and the target's name.
"""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edgespec.cache.facts import PairStore
from edgespec.drafters import Parts, build, is_always_asked, strategies
from edgespec.drafters.database import TokenIndex
from edgespec.errors import EdgeSpecError, NativeLibraryError
from edgespec.estimates.acceptance import Acceptance
from edgespec.llama.context import Context
from edgespec.machine.available import available_memory
from edgespec.pauses import Pause
from edgespec.planning.guarded import GuardedDrafter
from edgespec.protocols import Drafter
from edgespec.reports import Report
from edgespec.runtime.model_place import ModelPlace
from edgespec.runtime.request import BEST_DRAFTER, NO_DRAFTER, LoadRequest

if TYPE_CHECKING:
    from edgespec.runtime.form import Form
    from edgespec.runtime.head_rows import Follow, HeadFollower
    from edgespec.runtime.model_drafter import BoundDrafter
    from edgespec.vocab.ngrams import NgramCache


MODEL = "model"
"""The strategy of whatever model drafts."""

_MEMORY_SHARE = 3
"""Memory must hold a file so many times for it to be loaded beside another: weights, as they are
rearranged."""


class Following:
    """Implements `edgespec.runtime.idle.IdleTask` for whatever model drafts."""

    def __init__(self) -> None:
        self.head: HeadFollower | None = None

    @property
    def name(self) -> str:
        """What is done no more after it failed."""
        return self.head.name if self.head is not None else ""

    def run(self, pause: Pause) -> bool:
        """Look whether other rows would suit the user better, if the model has a trimmed head."""
        return self.head is not None and self.head.run(pause)


class Drafters:
    """The drafters of one target, best sources first; `cleanup` remembers and closes them.

    `model_place` holds the model, `bound`, in its `form`; in idle time `following` has the rows of
    its head follow the user.
    """

    def __init__(
        self,
        request: LoadRequest,
        form: Form | None,
        target: Context,
        calibrations: PairStore,
        ngrams: PairStore,
        tiers_of: Callable[[str], Sequence[TokenIndex]] | None,
        report: Report,
        cleanup: contextlib.ExitStack,
        follow: Callable[[], Follow] | None = None,
    ) -> None:
        """Build what is asked for, with the model that `form` names, if any.

        A model that cannot serve is left out with one line. `calibrations` and `ngrams` keep what
        drafters learn, and are left alone where nothing is to be. `tiers_of` gives those of the
        token database by owner, None where there is no such. `follow` has the trimmed head of a
        model follow what the target says.
        """
        self.tiers_of = tiers_of
        self.bound: BoundDrafter | None = None
        self.form: Form | None = None
        self._look_ups: dict[str, Drafter] = {}
        self._calibrations = calibrations if request.remember else None
        self._ngrams = ngrams if request.remember else None
        self._learns = request.learn
        self._follow = follow
        self.following = Following()
        self._report = report
        self.target = target
        self._target_name = target.model.path.stem
        self._cleanup = cleanup
        self.model_place = ModelPlace()
        cleanup.callback(self.model_place.close)
        self.all: list[Drafter] = []
        if request.drafter == NO_DRAFTER:
            return
        if not target.model.can_roll_back:
            kind = target.model.architecture
            report(f"{self._target_name} ({kind}) cannot forget tokens: it answers undrafted")
            return
        for name in strategies():
            if is_always_asked(name) or name == request.drafter:
                self._add(name)
        self.all.append(self.model_place)
        if form is None:
            return
        try:
            self._add_model(form)
        except EdgeSpecError as error:
            is_named = request.drafter != BEST_DRAFTER  # whoever asked for it is to know
            if is_named and not isinstance(error, NativeLibraryError):
                raise
            report(f"{form.name} does not draft: {error}")

    @property
    def name(self) -> str:
        """What people are shown: the drafters' names, or "none"."""
        return "+".join(drafter.name for drafter in self.all if drafter.name) or NO_DRAFTER

    def exchange(self, form: Form, pause: Pause) -> bool:
        """Have another model, or form of it, draft from the next answer on; False if not now.

        Raises what `pause` raises, ModelFileError, NativeLibraryError or UsageError; then the one
        before goes on.
        """
        if not is_room_beside(form):
            return False
        pause()
        self._add_model(form)
        return True

    def another(self, cleanup: contextlib.ExitStack, *, knows: bool = True) -> dict[str, Drafter]:
        """The same drafters once more, by strategy; what each learns from now on is its own.

        It begins with what these `know` of their guesses, or nothing. `cleanup` frees what is
        opened. Raises NativeLibraryError where memory is out.
        """
        another: dict[str, Drafter] = {}
        for strategy, known in self._look_ups.items():
            drafter = build(strategy, Parts(self.tiers_of))
            if drafter is not None:
                another[strategy] = self._knowing(drafter, known if knows else None)
        if self.bound is not None:
            model = self.bound.another(self.target, cleanup)
            model.costs = copy.copy(self.bound.drafter.costs)
            another[MODEL] = self._knowing(model, self.bound.drafter if knows else None)
        return another

    def _knowing(self, drafter: Drafter, known: Drafter | None) -> GuardedDrafter:
        """A new drafter that has learned what `known` has."""
        for learned in ("calibration", "ngrams") if known is not None else ():
            if hasattr(known, learned):
                setattr(drafter, learned, copy.deepcopy(getattr(known, learned)))
        return GuardedDrafter(drafter, self._report)

    def _add(self, strategy: str) -> None:
        """Have a strategy draft, with what it learned earlier, unless it has nothing to use."""
        drafter = build(strategy, Parts(self.tiers_of))
        if drafter is not None:
            calibration = getattr(drafter, "calibration", None)
            if isinstance(calibration, Acceptance):
                self._remember_estimates(drafter.name, calibration, self._cleanup)
            self._look_ups[strategy] = drafter
            self.all.append(GuardedDrafter(drafter, self._report))

    def _add_model(self, form: Form) -> None:
        # Both read GGUF files: much to load.
        from edgespec.runtime.head_rows import open_follower
        from edgespec.runtime.model_drafter import open_model_drafter

        with contextlib.ExitStack() as opened:
            bound = open_model_drafter(form, self.target, opened)
            cleanup = opened.pop_all()
        self.following.head = None
        self.model_place.close()
        self.form, self.bound = form, bound
        model = bound.drafter
        self._remember_estimates(model.name, model.calibration, cleanup)
        self._remember(self._ngrams, model.fingerprints, model.ngrams, cleanup)
        self.model_place.put(GuardedDrafter(model, self._report), cleanup)
        if self._follow is not None and form.trimmed is not None:
            self.following.head = open_follower(self._follow(), form, bound, self.target)

    def _remember_estimates(
        self, name: str, calibration: Acceptance, cleanup: contextlib.ExitStack
    ) -> None:
        pair = (_as_text(self._target_name), _as_text(name))
        self._remember(self._calibrations, pair, calibration, cleanup)

    def _remember(
        self,
        store: PairStore | None,
        pair: tuple[str, str],
        learned: Acceptance | NgramCache,
        cleanup: contextlib.ExitStack,
    ) -> None:
        """Take back what was learned of a pair of target and drafter, and keep what will be."""
        if store is None:
            return
        known = store.load(*pair)
        if known is not None:
            learned.restore(known)
        if self._learns:
            cleanup.callback(lambda: store.save(*pair, learned.export()))


def is_room_beside(form: Form) -> bool:
    """Whether there is memory for a model beside all that is loaded."""
    free = available_memory()
    return free is None or free >= _MEMORY_SHARE * form.running.stat().st_size


def _as_text(name: str) -> str:
    """A file's name as UTF-8, which SQLite wants; file names may be anything."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
