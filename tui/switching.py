"""Another target or drafter between answers: by name, or chosen on the screen of models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgespec.protocols import Completer
from edgespec.reports import Report
from edgespec.tui.model_rows import Kind
from edgespec.tui.models_screen import Chosen, ModelsScreen

if TYPE_CHECKING:
    from edgespec.tui.app import ChatApp


class Switching:
    """Knows what serves by the names that it was asked for; one load is under way at a time."""

    def __init__(self, app: ChatApp) -> None:
        self._app = app
        self._names: dict[Kind, str] = {}
        self._wanted: Chosen | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether another model is being loaded."""
        return self._wanted is not None

    def choose(self, kind: Kind, name: str) -> None:
        """Take another model, or show what there is."""
        app, catalog = self._app, self._app.services.catalog
        if app.services.load is None or catalog is None or app.pulls is None:
            app.hint("models cannot be changed here")
        elif name:
            self._switch(Chosen(kind, name))
        elif not isinstance(app.screen, ModelsScreen):
            target = app.model.name if app.model is not None else ""
            names = self._names.get("model", target), self._names.get("drafter", "auto")
            app.push_screen(ModelsScreen(catalog, app.pulls, *names, kind), self._chosen)

    def cancel(self) -> None:
        """Take the load back, if there is one under way."""
        cancel = self._app.services.cancel_load
        if self.is_under_way and cancel is not None:
            cancel()

    def ended(self, *, is_loaded: bool) -> None:
        """The load, if it was one of these, is over."""
        wanted, self._wanted = self._wanted, None
        if wanted is not None and is_loaded:
            self._names[wanted.kind] = wanted.name

    def _chosen(self, chosen: Chosen | None) -> None:
        if chosen is not None:
            self._switch(chosen)

    def _switch(self, chosen: Chosen) -> None:
        """Load behind the screen; the model before goes on if that fails."""
        app, load = self._app, self._app.services.load
        assert load is not None
        if app.is_loading:
            app.hint("a model is being loaded" + " · Esc takes it back" * self.is_under_way)
            return
        app.actions.summary.cancel()
        app.dialogue.stop()
        self._wanted = chosen
        target = chosen.name if chosen.kind == "model" else None
        drafter = chosen.name if chosen.kind == "drafter" else None

        def switch(report: Report) -> Completer:
            return load(target, drafter, report)

        app.begin_loading(switch)
