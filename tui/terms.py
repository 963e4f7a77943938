"""Asking whether the terms of a model are accepted, before it is pulled."""

from __future__ import annotations

import threading
from typing import Any, ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from edgespec.catalog import CatalogModel

ACCEPT, REFUSE = "accept", "refuse"


class TermsScreen(ModalScreen[bool]):
    """The terms, and two answers; Escape is a no."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "refuse", "No", show=False)]
    DEFAULT_CSS = """
    TermsScreen {
        align: center middle;
        background: $background 60%;
    }
    #terms {
        width: 72;
        max-width: 100%;
        height: auto;
        max-height: 100%;
        padding: 0 2;
        border: round $primary;
        background: $surface;
    }
    #terms > Static {
        height: auto;
        margin-bottom: 1;
    }
    #terms > OptionList {
        height: auto;
        border: none;
        padding: 0;
        background: transparent;
    }
    """

    def __init__(self, model: CatalogModel) -> None:
        super().__init__()
        self._model = model

    def compose(self) -> ComposeResult:
        """Text and answers in one column, scrolled where the terminal is low."""
        with VerticalScroll(id="terms", can_focus=False) as column:
            column.border_title = f"Terms of {self._model.name}"
            yield Static(self._model.terms or "", markup=False)
            answers = Option("Accept and pull", id=ACCEPT), Option("Do not pull", id=REFUSE)
            yield OptionList(*answers, compact=True)

    def on_mount(self) -> None:
        """The answer that binds nobody is under the cursor."""
        answers = self.query_one(OptionList)
        answers.highlighted = 1
        answers.focus()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """One of the answers was given."""
        self.dismiss(event.option_id == ACCEPT)

    def action_refuse(self) -> None:
        """No."""
        self.dismiss(False)


class TermsQuestion:
    """Implements `edgespec.catalog.AcceptTerms`: asks in an app, and waits, in any other thread.

    Whoever builds the app attaches it; without one, and once it has left, the answer is no.
    """

    def __init__(self) -> None:
        self._app: App[Any] | None = None

    def attach(self, app: App[Any]) -> None:
        """Ask in this app from now on."""
        self._app = app

    def __call__(self, model: CatalogModel) -> bool:
        """Show the terms and wait for the answer."""
        app, answered, answers = self._app, threading.Event(), [False]
        if app is None:
            return False

        def answer(is_accepted: bool | None) -> None:
            answers[0] = bool(is_accepted)
            answered.set()

        try:
            app.call_from_thread(app.push_screen, TermsScreen(model), answer)
        except RuntimeError:  # it has left
            return False
        while app.is_running and not answered.wait(0.1):
            pass
        return answers[0]
