"""Which drafters serve a target, and how they are built and remembered.

Every target that can roll back gets the context drafter, that of forced tokens, and the database
drafter where there is a token database; a model drafts beside them if one is asked for or found.
What a drafter learned is kept under its own and the target's name.
"""

from __future__ import annotations

import contextlib
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
    from edgespec.vocab.ngrams import NgramCache


_MEMORY_SHARE = 3
"""Memory must hold a file so many times for it to be exchanged: weights, as they are rearranged."""


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

    `model_place` holds the model; in idle time `following` has the rows of its head follow the
    user.
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
        self._calibrations = calibrations if request.remember else None
        self._ngrams = ngrams if request.remember else None
        self._learns = request.learn
        self._follow = follow
        self.following = Following()
        self._report = report
        self._target = target
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
                self._add(build(name, Parts(tiers_of)))
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
        free = available_memory()
        if free is not None and free < _MEMORY_SHARE * form.running.stat().st_size:
            return False
        pause()
        self._add_model(form)
        return True

    def _add(self, drafter: Drafter | None) -> None:
        """Have a drafter draft, with what it learned earlier; None is one with nothing to use."""
        if drafter is not None:
            calibration = getattr(drafter, "calibration", None)
            if isinstance(calibration, Acceptance):
                self._remember_estimates(drafter.name, calibration, self._cleanup)
            self.all.append(GuardedDrafter(drafter, self._report))

    def _add_model(self, form: Form) -> None:
        # Both read GGUF files: much to load.
        from edgespec.runtime.head_rows import open_follower
        from edgespec.runtime.model_drafter import open_model_drafter

        with contextlib.ExitStack() as opened:
            bound = open_model_drafter(form, self._target, opened)
            cleanup = opened.pop_all()
        self.following.head = None
        self.model_place.close()
        model = bound.drafter
        self._remember_estimates(model.name, model.calibration, cleanup)
        self._remember(self._ngrams, model.fingerprints, model.ngrams, cleanup)
        self.model_place.put(GuardedDrafter(model, self._report), cleanup)
        if self._follow is not None and form.trimmed is not None:
            self.following.head = open_follower(self._follow(), form, bound, self._target)

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


def _as_text(name: str) -> str:
    """A file's name as UTF-8, which SQLite wants; file names may be anything."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
