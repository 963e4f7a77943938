"""Another target or drafter between answers: by name, or chosen on the screen of models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgespec.reports import Report
from edgespec.tui.model_rows import Kind
from edgespec.tui.models_screen import Chosen, ModelsScreen

if TYPE_CHECKING:
    from edgespec.tui.app import ChatApp


class Switching:
    """Knows what serves by the names that it was asked for."""

    def __init__(self, app: ChatApp) -> None:
        self._app = app
        self._serving: tuple[str, str] | None = None

    def choose(self, kind: Kind, name: str) -> None:
        """Take another model, or show what there is."""
        app, catalog = self._app, self._app.services.catalog
        if app.services.load is None or catalog is None or app.pulls is None:
            app.hint("models cannot be changed here")
        elif name:
            self._switch(Chosen(kind, name))
        elif not isinstance(app.screen, ModelsScreen):
            screen = ModelsScreen(catalog, app.pulls, *self.serving, kind)
            app.push_screen(screen, self._chosen)

    @property
    def serving(self) -> tuple[str, str]:
        """Names of the model that answers and of what drafts."""
        model = self._app.model
        return self._serving or (model.name if model is not None else "", "auto")

    def _chosen(self, chosen: Chosen | None) -> None:
        if chosen is not None:
            self._switch(chosen)

    def _switch(self, chosen: Chosen) -> None:
        """Load behind the screen; the model before goes on if that fails."""
        app = self._app
        load = app.services.load
        assert load is not None
        app.dialogue.stop()
        target, drafter = self.serving
        wanted = (chosen.name, drafter) if chosen.kind == "model" else (target, chosen.name)

        def switch(report: Report) -> None:
            load(*wanted, report)
            self._serving = wanted

        app.worker.load_again(switch)
