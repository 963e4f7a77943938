"""Which models serve: the first ones, others in their place, and what becomes of each load.

    begin | switch -> Worker -> progress* , loaded | failed
    Escape         -> cancelled: what served goes on; without any, Ctrl+R tries again
    open_chat      -> restore: what a conversation was switched to serves again

One load is under way at a time. The names are those that `/model` and `/drafter` take.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edgespec.chats import ChatSettings
from edgespec.errors import BusyError, EdgeSpecError
from edgespec.protocols import Completer
from edgespec.reports import Report
from edgespec.tui.failure import Failure
from edgespec.tui.options import ChatOutcome
from edgespec.types import ServedModel

if TYPE_CHECKING:
    from edgespec.tui.app import ChatApp
    from edgespec.tui.model_rows import Kind
    from edgespec.tui.models_screen import Chosen

WAYS_ON = "Ctrl+R tries again · /model takes another one"
"""What can be done where no model is there."""


class Loading:
    """Acts on the app; `failed` is how that would end now, None unless no model could be loaded."""

    def __init__(self, app: ChatApp) -> None:
        self._app = app
        self._names: dict[Kind, str] = {"model": app.options.model, "drafter": app.options.drafter}
        self._wanted: Mapping[Kind, str] = {}
        self._wanted_in: str | None = None
        self._restored: Mapping[Kind, str] = {}
        self._missing = app.options.pull_when_loaded
        self._has_failed = False
        self.is_under_way = False
        self.failed: ChatOutcome | None = None

    # Beginning and ending one

    def begin(self) -> None:
        """Load what was asked for first, or once more what failed."""
        self._mark()
        self._app.worker.start()

    async def begin_for(self, settings: ChatSettings) -> None:
        """Load first what a conversation was switched to, as far as it is here."""
        wanted = await self._wanted_by(settings)
        if wanted:
            self.switch(wanted)
        else:
            self.begin()

    def switch(self, wanted: Mapping[Kind, str]) -> None:
        """Load another model or drafter behind the screen; what serves goes on if that fails."""
        app, load = self._app, self._app.services.load
        assert load is not None
        self._wanted, self._wanted_in = wanted, app.dialogue.session.chat

        def switched(report: Report) -> Completer:
            return load(wanted.get("model"), wanted.get("drafter"), report)

        self._mark()
        app.worker.load_again(switched)

    def cancel(self) -> None:
        """Take the load back."""
        cancel = self._app.services.cancel_load
        if cancel is not None:
            cancel()

    def _mark(self) -> None:
        self.is_under_way, self.failed = True, None
        self._app.show_state("loading")

    # Choosing

    def choose(self, kind: Kind, name: str) -> None:
        """Take another model, or show what there is."""
        from edgespec.tui.models_screen import Chosen, ModelsScreen  # not for the first frame

        app, catalog = self._app, self._app.services.catalog
        if app.services.load is None or catalog is None or app.pulls is None:
            app.hint("models cannot be changed here")
        elif name:
            self._chosen(Chosen(kind, name))
        elif not isinstance(app.screen, ModelsScreen):
            target = app.model.name if app.model is not None else ""
            screen = ModelsScreen(catalog, app.pulls, target, self._names["drafter"], kind)
            app.push_screen(screen, self._chosen)

    def _chosen(self, chosen: Chosen | None) -> None:
        app = self._app
        if chosen is not None and self.is_under_way:
            app.hint("a model is being loaded · Esc takes it back")
        elif chosen is not None:
            app.actions.summary.cancel()
            app.dialogue.stop()
            self.switch({chosen.kind: chosen.name})

    # What a conversation was switched to

    async def restore(self, settings: ChatSettings) -> None:
        """Have what a reopened conversation was switched to serve."""
        wanted = await self._wanted_by(settings)
        if wanted and self.is_under_way:
            self._restored = wanted
        elif wanted:
            self.switch(wanted)

    async def _wanted_by(self, settings: ChatSettings) -> dict[Kind, str]:
        """What a conversation was switched to and does not serve now; what is not here is told."""
        app, catalog = self._app, self._app.services.catalog
        wanted = self._others(settings)
        if not wanted or catalog is None or app.services.load is None:
            return {}
        from edgespec.tui.model_rows import NO_MODEL_DRAFTERS

        here = {name for name, _ in NO_MODEL_DRAFTERS}
        with contextlib.suppress(EdgeSpecError):  # then no model is known to be here
            listed = await asyncio.to_thread(catalog.models)
            here |= {model.name for model in listed if model.is_on_disk}
        for name in sorted(set(wanted.values()) - here):
            if not _is_file(name):
                app.dialogue.note(f"{name}, which served here before, is not on disk")
                wanted = {kind: each for kind, each in wanted.items() if each != name}
        return wanted

    def _others(self, settings: ChatSettings) -> dict[Kind, str]:
        target = self._app.model.name if self._app.model is not None else ""
        wanted: dict[Kind, str] = {}
        if settings.model and settings.model not in (self._names["model"], target):
            wanted["model"] = settings.model
        if settings.drafter and settings.drafter != self._names["drafter"]:
            wanted["drafter"] = settings.drafter
        return wanted

    # What the worker tells

    def progress(self, line: str) -> None:
        """Tell how far it is; the engine that comes back after a death tells nothing here."""
        if self.is_under_way:
            if self._app.state in ("loading", "ready"):
                self._app.show_state("loading", detail=line)
            self._app.transcript.welcome([line])

    def loaded(self, model: ServedModel) -> None:
        """Have it answer, and keep in the conversation what it was switched to."""
        app, wanted = self._app, self._wanted
        if app.model is not None:
            app.dialogue.note(f"{model.name} answers, drafter {model.drafter}")
        self.is_under_way, self._wanted = False, {}
        self._names.update(wanted)
        app.change_status(model=model)
        app.show_state("ready")
        app.show_welcome()
        app.box.count_attached()
        self._pull_what_is_missing()
        if wanted and self._wanted_in == app.dialogue.session.chat:
            app.turns.add(partial(app.actions.keep_models, wanted))
        restored, self._restored = self._restored, {}
        if restored:
            self.switch(restored)
        else:
            app.turns.add(app.dialogue.send_waiting)

    def failed_with(self, failure: Failure) -> None:
        """Go on with what served; without it leave, unless there is something to lose."""
        app = self._app
        self.is_under_way, self._restored = False, {}
        if app.model is not None:
            self._wanted = {}
            tell = app.dialogue.note if failure.is_cancelled else app.dialogue.error
            tell(f"{failure.line} · {app.model.name} goes on")
            app.show_state("ready")
            app.turns.add(app.dialogue.send_waiting)
            return
        app.dialogue.take_back_waiting()
        self._stay_without(failure)

    def _stay_without(self, failure: Failure) -> None:
        app, stays = self._app, self._has_failed or failure.is_cancelled
        self._has_failed = True
        if failure.is_cancelled:  # the user knows
            self.failed = ChatOutcome()
        else:
            self.failed = ChatOutcome(failure.exit_code, failure.line)
            app.dialogue.error(failure.line)
        if not stays and app.has_nothing_to_lose:
            app.exit(self.failed, return_code=self.failed.exit_code)
        else:
            app.show_state("failed", detail="no model")
            app.dialogue.note(f"no model is there · {WAYS_ON} · Ctrl+Q quits")

    def _pull_what_is_missing(self) -> None:
        missing, self._missing = self._missing, None
        pulls = self._app.pulls
        if pulls is not None and missing:
            with contextlib.suppress(BusyError):  # the user was faster
                pulls.start(missing, lambda _model: False)


def _is_file(name: str) -> bool:
    """Whether a name is that of a file here; the conversation may have been imported."""
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        return Path(name).expanduser().is_file()
    return False
