"""The screen of models: choose who answers or who drafts, pull what is not here.

What it lists it learns in a thread; pulls belong to the app, go on when the screen is left, and
tell the screen as long as it is there.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from edgespec.catalog import Catalog, CatalogModel, PullState
from edgespec.errors import BusyError
from edgespec.tui.failure import Failure, describe
from edgespec.tui.model_rows import Kind, Row, laid_out, rows_of
from edgespec.tui.plain import plain
from edgespec.tui.pulls import PullEnded, PullMoved, Pulls
from edgespec.tui.terms import TermsScreen

_BAR_CELLS = 24
_HEIGHTS = [(0, "-low"), (20, "-tall")]
"""From how many rows there is room for empty ones."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Who is to answer ("model"), or to draft: a name that `--model` or `--drafter` understands."""

    kind: Kind
    name: str


class ModelsListed(Message, bubble=False):
    """What there is, or why that cannot be told."""

    def __init__(self, models: Sequence[CatalogModel], failure: Failure | None) -> None:
        super().__init__()
        self.models = models
        self.failure = failure


class ModelsScreen(ModalScreen[Chosen | None]):
    """Ends with what was chosen, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Stop the pull, or close", show=False),
        Binding("tab,shift+tab", "switch_kind", "Answers or drafts", show=False, priority=True),
        Binding("up", "move('cursor_up')", "Up", show=False),
        Binding("down", "move('cursor_down')", "Down", show=False),
        Binding("pageup", "move('page_up')", "Page up", show=False),
        Binding("pagedown", "move('page_down')", "Page down", show=False),
    ]
    VERTICAL_BREAKPOINTS = _HEIGHTS
    DEFAULT_CSS = """
    ModelsScreen {
        align: center middle;
        background: $background 60%;
    }
    #models {
        width: 100;
        max-width: 100%;
        height: 100%;
        max-height: 32;
        padding: 0 1;
        border: round $primary;
        background: $surface;
    }
    #models > Input {
        padding: 0 1;
        background: transparent;
    }
    #models > OptionList {
        height: 1fr;
        border: none;
        padding: 0;
        background: transparent;
        scrollbar-size-vertical: 1;
    }
    #models > Static {
        height: auto;
        padding: 0 1;
    }
    ModelsScreen.-tall #models > Input {
        margin-bottom: 1;
    }
    ModelsScreen.-tall #models-pulls, ModelsScreen.-tall #models-hint {
        margin-top: 1;
    }
    #models-hint.-error {
        color: $text-error;
    }
    """

    def __init__(
        self, catalog: Catalog, pulls: Pulls, target: str, drafter: str, kind: Kind = "model"
    ) -> None:
        """`target` and `drafter` are the names of those that serve now."""
        super().__init__()
        self._catalog = catalog
        self._pulls = pulls
        self._current: dict[Kind, str] = {"model": target, "drafter": drafter}
        self._kind = kind
        self._models: Sequence[CatalogModel] | None = None
        self._rows: list[Row] = []
        self._said = ""

    # What is on the screen

    def compose(self) -> ComposeResult:
        """Whose place it is, what is looked for, what there is, what is under way, what to do."""
        with Vertical(id="models") as column:
            column.border_title = "Models"
            yield Static(id="models-kind")
            yield Input(placeholder="type to find", compact=True)
            options = OptionList(compact=True)
            options.can_focus = False
            yield options
            yield Static(id="models-pulls")
            yield Static(id="models-hint")

    def on_mount(self) -> None:
        """Show at once; what is on disk is read meanwhile."""
        self.query_one(Input).focus()
        self._unlisten = self._pulls.listen(self.post_message)
        self._show()
        self._list()

    def on_unmount(self) -> None:
        """Hear of pulls no more."""
        self._unlisten()

    def on_resize(self) -> None:
        """Lay the rows out anew."""
        self.call_after_refresh(self._show)

    @property
    def _options(self) -> OptionList:
        return self.query_one(OptionList)

    @property
    def _row(self) -> Row | None:
        """The row under the cursor."""
        option = self._options.highlighted_option
        return next((row for row in self._rows if option and row.name == option.id), None)

    def _list(self) -> None:
        threading.Thread(target=self._read, name="models", daemon=True).start()

    def _read(self) -> None:
        try:
            listed = ModelsListed(self._catalog.models(), None)
        except Exception as error:  # noqa: BLE001 - a user sees a line, no traceback
            listed = ModelsListed((), describe(error))
        self.post_message(listed)

    @on(ModelsListed)
    def _listed(self, event: ModelsListed) -> None:
        self._models = event.models
        if event.failure is not None:
            self._say(event.failure.line, is_error=True)
        self._show()

    def _show(self) -> None:
        """Draw everything anew, with the cursor on the row where it was."""
        before = self._row.name if self._row else self._current[self._kind]
        self._rows = rows_of(
            self._models or (), self._kind, self._current[self._kind], self.query_one(Input).value
        )
        width = max(self.query_one("#models").scrollable_content_region.width - 3, 20)
        self._options.set_options(self._grouped(width))
        self._highlight(before)
        self._show_kind()
        self._show_pulls()
        self._show_hint()

    def _grouped(self, width: int) -> list[Option]:
        """The rows under the names of their groups."""
        options, group = [], ""
        for row in self._rows:
            if row.group != group:
                group = row.group
                options.append(Option(Content.styled(group, "$text-muted"), disabled=True))
            options.append(Option(laid_out(row, width), id=row.name))
        return options

    def _highlight(self, name: str) -> None:
        """Put the cursor on a row, or else on the one that serves now, or else on the first."""
        rows = {row.name: row for row in self._rows}
        current = next((row.name for row in self._rows if row.is_current), next(iter(rows), None))
        wanted = name if name in rows else current
        self._options.highlighted = (
            self._options.get_option_index(wanted) if wanted is not None else None
        )

    def _show_kind(self) -> None:
        here, there = "bold $text-primary", "$text-muted"
        answers = ("Who answers", here if self._kind == "model" else there)
        drafts = ("Who drafts", there if self._kind == "model" else here)
        self.query_one("#models-kind", Static).update(Content.assemble(answers, "   ", drafts))

    def _show_pulls(self) -> None:
        states = self._pulls.states
        pulls = self.query_one("#models-pulls", Static)
        pulls.display = bool(states)
        pulls.update(Content("\n").join([pull_lines(state) for state in states]))
        self.call_after_refresh(self._options.scroll_to_highlight)

    def _show_hint(self) -> None:
        hint = self.query_one("#models-hint", Static)
        hint.update(plain(self._said or self._what_to_do()), layout=True)

    def _what_to_do(self) -> str:
        if self._models is None:
            return "looking at what is here · Esc closes"
        other = "Tab who drafts" if self._kind == "model" else "Tab who answers"
        row = self._row
        if row is None:
            return f"nothing is called so · {other} · Esc closes"
        if self._pulls.is_pulling(row.name):
            return "Enter back to the chat, it goes on · Esc stops it"
        act = "chooses it" if row.model is None or row.model.is_on_disk else "pulls it"
        return f"Enter {act} · {other} · Esc closes"

    def _say(self, line: str, is_error: bool = False) -> None:
        """Show a line in the place of the hint, until the next key."""
        self._said = line
        self.query_one("#models-hint").set_class(is_error, "-error")
        self._show_hint()

    # Keys

    @on(Input.Changed)
    def _typed(self) -> None:
        self._say("")
        self._show()
        if self._rows and self.query_one(Input).value:
            self._highlight(max(self._rows, key=lambda row: row.score).name)

    @on(OptionList.OptionHighlighted)
    def _moved(self) -> None:
        self._show_hint()

    def action_move(self, action: str) -> None:
        """Move the cursor, wherever the focus is."""
        self._say("")
        getattr(self._options, f"action_{action}")()

    def action_switch_kind(self) -> None:
        """Choose for the other place."""
        self._kind = "drafter" if self._kind == "model" else "model"
        self._options.highlighted = None
        self._say("")
        self._show()

    @on(Input.Submitted)
    def _entered(self) -> None:
        self._act()

    @on(OptionList.OptionSelected)
    def _clicked(self) -> None:
        self._act()

    def _act(self) -> None:
        """Choose what is on disk, pull what is not."""
        row = self._row
        if row is None:
            return
        if self._pulls.is_pulling(row.name):
            self.dismiss(None)
        elif row.model is None or row.model.is_on_disk:
            self.dismiss(Chosen(self._kind, row.name))
        elif row.model.terms:
            name = row.name
            self.app.push_screen(
                TermsScreen(row.model), lambda is_accepted: self._pull(name, bool(is_accepted))
            )
        else:
            self._pull(row.name, True)

    def action_leave(self) -> None:
        """Stop the pull under the cursor, else close."""
        row = self._row
        if row is not None and self._pulls.is_pulling(row.name):
            self._pulls.cancel(row.name)
        else:
            self.dismiss(None)

    # Pulls

    def _pull(self, name: str, is_accepted: bool) -> None:
        if not is_accepted:
            self._say("not pulled: its terms were not accepted")
            return
        try:
            self._pulls.start(name, lambda _model: True)
        except BusyError as error:
            self._say(str(error), is_error=True)
            return
        self._say("")
        self._show_pulls()

    @on(PullMoved)
    def _pull_moved(self) -> None:
        self._show_pulls()
        self._show_hint()

    @on(PullEnded)
    def _pull_ended(self, event: PullEnded) -> None:
        if event.failure is not None:
            self._say(f"{event.failure.line} · Enter tries again", is_error=True)
        elif event.is_cancelled:
            self._say(f"{event.name}: stopped; what came is kept, Enter goes on from there")
        else:
            self._say(f"{event.name} is here · Enter chooses it")
        self._show_pulls()
        self._list()


def pull_lines(state: PullState) -> Content:
    """A pull as a bar and its figures.

    >>> str(pull_lines(PullState("tiny", "the Hub", 500_000, 1_000_000)))
    'tiny ━━━━━━━━━━━━──────────── 50%\\n500.0 kB of 1.00 MB'
    """
    share = state.share or 0.0
    done = round(share * _BAR_CELLS)
    percent = f" {share:.0%}" if state.share is not None else ""
    return Content.assemble(
        (plain(state.name), "bold"),
        " ",
        ("━" * done, "$primary"),
        ("─" * (_BAR_CELLS - done), "$text-disabled"),
        percent,
        "\n",
        (plain(state.describe()), "$text-muted"),
    )
