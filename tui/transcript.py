"""The conversation on the screen: questions, answers in Markdown, notes and errors."""

from __future__ import annotations

from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore
from textual import events
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widget import Widget
from textual.widgets import Markdown, Static

from edgespec.tui.plain import plain

WELCOME = "EdgeSpec"


def _keep_line_breaks(state: StateCore) -> None:
    """Turn soft line breaks into hard ones: models break lines in verse, not to wrap text."""
    for token in state.tokens:
        for child in token.children or ():
            if child.type == "softbreak":
                child.type = "hardbreak"


def _show_controls(state: StateCore) -> None:
    """Make control characters visible before anything is parsed from the text."""
    state.src = plain(state.src)


def chat_parser() -> MarkdownIt:
    """GitHub's Markdown with line breaks kept, and HTML shown as the text it is (not left out)."""
    parser = MarkdownIt("gfm-like", {"html": False})
    parser.core.ruler.after("normalize", "show_controls", _show_controls)
    parser.core.ruler.push("keep_line_breaks", _keep_line_breaks)
    return parser


class Question(Static):
    """A message of the user, as it was typed."""

    def __init__(self, text: str, classes: str | None = None) -> None:
        super().__init__(plain(text), markup=False, classes=classes)


class Answer(Markdown):
    """An answer of the model, drawn while it grows."""

    def __init__(self) -> None:
        parser = chat_parser()
        super().__init__("", parser_factory=lambda: parser, open_links=False)

    async def grow(self, text: str) -> None:
        """Draw `text` after what is there."""
        if text:
            await self.append(text)

    async def settle(self, text: str) -> None:
        """Make sure that what is drawn is exactly `text`, once the answer has ended."""
        if self.source != text:
            await self.update(text)

    def fold(self, folded: bool) -> None:
        """Keep the height but take the blocks out of the layout, or put them back."""
        if folded != self.has_class("-folded"):
            self.styles.height = self.outer_size.height if folded else None
            self.set_class(folded, "-folded")

    def on_markdown_link_clicked(self, event: Markdown.LinkClicked) -> None:
        """Open web links only: a model's answer must not start other programs."""
        event.stop()
        if event.href.startswith(("https://", "http://")):
            self.app.open_url(event.href)


class Welcome(Static):
    """What an empty conversation shows."""


class Transcript(VerticalScroll, can_focus=False):
    """Keeps its end in view until the user scrolls up, and again when they are back at the end.

    Textual lays out every block of every answer anew for each redraw, so a long conversation would
    make each one slower (measured: 65 ms after twenty long answers, against 12 ms after none).
    Answers far from what is in view are therefore folded: one box of the same height.
    """

    def __init__(self) -> None:
        super().__init__()
        self._folded_width = 0

    def compose(self) -> ComposeResult:
        """Start empty but for the welcome."""
        self.add_class("-empty")
        yield Welcome(WELCOME, markup=False)

    def welcome(self, line: str) -> None:
        """Say `line` below the name, as long as the conversation is empty."""
        for widget in self.query(Welcome):
            widget.update(plain(f"{WELCOME}\n\n{line}"))

    async def question(self, text: str, waiting: bool = False) -> None:
        """Add a message of the user and show it, wherever they had scrolled to.

        One that is `waiting` stays last, below all that is added, until `release` or `withdraw`.
        """
        await self.query(Welcome).remove()
        self.remove_class("-empty")
        await self._add(Question(text, classes="-waiting" if waiting else None))
        self.anchor()

    def release(self) -> None:
        """Make the waiting message one like the others."""
        self.query("Question.-waiting").remove_class("-waiting")

    async def withdraw(self) -> None:
        """Take the waiting message away again."""
        await self.query("Question.-waiting").remove()

    async def retract(self) -> None:
        """Take the newest message that is not waiting away: it got no answer."""
        asked = list(self.query("Question").exclude(".-waiting"))
        if asked:
            await asked[-1].remove()

    async def answer(self) -> Answer:
        """Add an answer, empty as yet."""
        self.fold_far_answers()
        widget = Answer()
        await self._add(widget)
        return widget

    async def note(self, line: str) -> None:
        """Add a quiet remark of the app."""
        await self._add(Static(plain(line), classes="note", markup=False))

    async def error(self, line: str) -> None:
        """Add a line about something that went wrong."""
        await self._add(Static(plain(f"✗ {line}"), classes="error", markup=False))

    async def clear(self) -> None:
        """Remove everything but a fresh welcome."""
        with self.app.batch_update():
            await self.remove_children()
            self.anchor(False)
            self.add_class("-empty")
            await self.mount(Welcome(WELCOME, markup=False))

    @property
    def last_answer(self) -> str:
        """The Markdown of the newest answer, "" if there is none."""
        answers = list(self.query(Answer))
        return answers[-1].source if answers else ""

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Unfold what comes near, fold what went far."""
        super().watch_scroll_y(old_value, new_value)
        self.fold_far_answers()

    def on_resize(self, event: events.Resize) -> None:
        """At a new width heights are others: lay everything out once, then fold again."""
        if event.size.width != self._folded_width:
            self._folded_width = event.size.width
            for answer in self.query_children(Answer):
                answer.fold(False)
            self.call_after_refresh(self.fold_far_answers)

    def fold_far_answers(self) -> None:
        """Fold the answers more than a page above or below the view, unfold the others."""
        page = self.size.height
        top, bottom = self.scroll_y - page, self.scroll_y + 2 * page
        for answer in self.query_children(Answer):
            region = answer.virtual_region
            if region.height:
                answer.fold(region.bottom < top or region.y > bottom)

    async def _add(self, widget: Widget) -> None:
        waiting = self.query("Question.-waiting")
        await self.mount(widget, before=waiting.first() if waiting else None)
