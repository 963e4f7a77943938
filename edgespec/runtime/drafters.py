"""Which drafters serve a target, and how they are built and remembered.

Every target that can roll back gets the context drafter, and the database drafter where there is a
token database; a model drafts beside them if one is asked for or found. What a drafter learned is
kept under its own and the target's name.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edgespec.drafters.context import ContextDrafter
from edgespec.drafters.database import DatabaseDrafter, TokenIndex
from edgespec.errors import EdgeSpecError, NativeLibraryError
from edgespec.estimates.acceptance import Acceptance, AcceptanceStore
from edgespec.llama.context import Context
from edgespec.planning.guarded import GuardedDrafter
from edgespec.protocols import Drafter, RowWatcher
from edgespec.reports import Report
from edgespec.runtime.request import BEST_DRAFTER, NO_DRAFTER, LoadRequest
from edgespec.types import Prompt

if TYPE_CHECKING:
    from edgespec.drafters.model import ModelDrafter
    from edgespec.engine.completer import AnswerListener
    from edgespec.learning.online.adaptations import AdaptationStore
    from edgespec.runtime.form import Form
    from edgespec.runtime.head_rows import Follow
    from edgespec.runtime.model_drafter import BoundDrafter
    from edgespec.runtime.online import Studying
    from edgespec.vocab.ngrams import NgramStore


class Drafters:
    """The drafters of one target, best sources first; `cleanup` remembers and closes them."""

    def __init__(
        self,
        request: LoadRequest,
        form: Form | None,
        target: Context,
        calibrations: AcceptanceStore,
        ngrams: NgramStore,
        tiers: Sequence[TokenIndex],
        report: Report,
        cleanup: contextlib.ExitStack,
        adaptations: AdaptationStore | None = None,
        follow: Follow | None = None,
    ) -> None:
        """Build what is asked for, with the model that `form` names, if any.

        A model that cannot serve is left out with one line. `calibrations` and `ngrams` keep what
        drafters learn, and are left alone where nothing is to be. `tiers` are those of the token
        database, none where there is no such. `adaptations` keeps what a drafting model learned of
        the target; without it, it does not learn. `follow` has the trimmed head of one follow what
        the target says.
        """
        self._calibrations = calibrations if request.remember else None
        self._ngrams = ngrams if request.remember else None
        self._learns = request.learn
        self._adaptations = adaptations if request.adapt and request.remember else None
        self._follow = follow
        self._target_name = target.model.path.stem
        self._cleanup = cleanup
        self.all: list[Drafter] = []
        self.prompt_readers: list[Callable[[Prompt], None]] = []
        self.watchers: list[RowWatcher] = []
        self.listeners: list[AnswerListener] = []
        if request.drafter == NO_DRAFTER:
            return
        if not target.model.can_roll_back:
            kind = target.model.architecture
            report(f"{self._target_name} ({kind}) cannot forget tokens: it answers undrafted")
            return
        context = ContextDrafter()
        self._remember(context.name, context.calibration)
        self.all.append(context)
        if tiers:
            database = DatabaseDrafter(tiers)
            self._remember(database.name, database.calibration)
            self.all.append(GuardedDrafter(database, report))
        if form is None:
            return
        try:
            self._add_model(form, target, report)
        except EdgeSpecError as error:
            is_named = request.drafter != BEST_DRAFTER  # whoever asked for it is to know
            if is_named and not isinstance(error, NativeLibraryError):
                raise
            report(f"{form.name} does not draft: {error}")

    @property
    def name(self) -> str:
        """What people are shown: the drafters' names, or "none"."""
        return "+".join(drafter.name for drafter in self.all) or NO_DRAFTER

    def _add_model(self, files: Form, target: Context, report: Report) -> None:
        from edgespec.runtime.model_drafter import (
            open_model_drafter,  # reads GGUF files: much to load
        )

        adapts = self._adaptations is not None
        with contextlib.ExitStack() as opened:
            bound = open_model_drafter(files, target, opened, adapts=adapts)
            self._cleanup.enter_context(opened.pop_all())
        model = bound.drafter
        self._remember(model.name, model.calibration)
        self._remember_ngrams(model)
        self.all.append(GuardedDrafter(model, report))
        studying = self._adapt(bound, report)
        if self._follow is not None:
            self._follow_user(self._follow, files, bound, target, studying, report)
        self.prompt_readers.append(model.read_prompt)

    def _follow_user(
        self,
        follow: Follow,
        files: Form,
        bound: BoundDrafter,
        target: Context,
        studying: Studying | None,
        report: Report,
    ) -> None:
        """Have the rows of the drafter's head follow what is said, if they may."""
        from edgespec.runtime.head_rows import open_follower

        follower = open_follower(follow, files, bound, target, studying, report)
        if follower is not None:
            self._cleanup.enter_context(follower)
            self.prompt_readers.insert(0, follower.begin)  # from here on nothing is exchanged
            self.listeners.append(follower.finish)

    def _adapt(self, bound: BoundDrafter, report: Report) -> Studying | None:
        """Serve what the drafter learned earlier, and have it learn on if it may."""
        if self._adaptations is None:
            return None
        from edgespec.runtime.online import Studying

        name = self._target_name
        studying = Studying(bound, self._adaptations, name, self._learns, report)
        self._cleanup.callback(studying.close)
        if self._learns:
            self.prompt_readers.append(studying.begin)
            self.watchers.append(studying)
            self.listeners.append(studying.finish)
        return studying

    def _remember_ngrams(self, model: ModelDrafter) -> None:
        """Take back, and keep, which runs of its tokens became one of the target's."""
        store = self._ngrams
        if store is None:
            return
        target, drafter = model.fingerprints
        known = store.load(target, drafter)
        if known is not None:
            model.ngrams.restore(known)
        if self._learns:
            self._cleanup.callback(lambda: store.save(target, drafter, model.ngrams.export()))

    def _remember(self, name: str, calibration: Acceptance) -> None:
        """Take back what was learned, and keep what will be."""
        store = self._calibrations
        if store is None:
            return
        target, drafter = _as_text(self._target_name), _as_text(name)
        known = store.load(target, drafter)
        if known is not None:
            calibration.restore(known)
        if self._learns:
            self._cleanup.callback(lambda: store.save(target, drafter, calibration.export()))


def _as_text(name: str) -> str:
    """A file's name as UTF-8, which SQLite wants; file names may be anything."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
