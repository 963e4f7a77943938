"""The chat app: what is on the screen, and what each key and each message does to it.

    loading     Worker -> LoadProgress* , Loaded | LoadFailed -> `Loading` (`edgespec.tui.loading`)
    asking      box -> Submitted -> Dialogue -> Worker -> AnswerProgress* , Answered | AnswerFailed
    commands    key, palette or /word -> `Actions` (`edgespec.tui.actions`)

All state lives on the event loop and changes in handlers only. The conversation is `Dialogue`'s,
what is kept of it `Session`'s.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.command import Provider
from textual.containers import Vertical

from edgespec.chats import ChatSettings, History
from edgespec.errors import EdgeSpecError
from edgespec.protocols import Completer
from edgespec.tui import signals
from edgespec.tui.actions import Actions
from edgespec.tui.commands import CommandProvider, bindings
from edgespec.tui.dialogue import Dialogue
from edgespec.tui.disk import Disk, opened_late
from edgespec.tui.keymap import read_keymap
from edgespec.tui.loading import WAYS_ON, Loading
from edgespec.tui.message_input import MessageInput
from edgespec.tui.options import ChatOptions, ChatOutcome
from edgespec.tui.preferences import Preferences
from edgespec.tui.pulls import PullEnded, PullMoved, Pulls
from edgespec.tui.services import Services
from edgespec.tui.session import Session
from edgespec.tui.small import TooSmallScreen, is_too_small
from edgespec.tui.stage import StageApp
from edgespec.tui.stats import BREAKPOINTS, StatsPanel
from edgespec.tui.status import StatusBar
from edgespec.tui.transcript import Transcript
from edgespec.tui.turns import Turns
from edgespec.tui.worker import (
    Answered,
    AnswerFailed,
    AnswerProgress,
    CompleterFactory,
    Loaded,
    LoadFailed,
    LoadProgress,
    Notice,
    Worker,
)

UNSENT = "unsent"
"""Under this name a message that was not sent is kept among the preferences."""

_FLUSH_S = 2.0


class ChatApp(StageApp):
    """A chat over a completer; `run` returns a `ChatOutcome` and prints nothing."""

    TITLE = "EdgeSpec"
    CSS_PATH = "chat.tcss"
    HORIZONTAL_BREAKPOINTS = BREAKPOINTS
    COMMANDS: ClassVar[set[type[Provider] | Callable[[], type[Provider]]]] = {CommandProvider}
    BINDINGS: ClassVar[list[BindingType]] = [
        *bindings(),
        Binding("ctrl+c", "interrupt", "Copy, stop or quit", show=False, system=True),
    ]

    def __init__(
        self,
        completer: Completer | CompleterFactory,
        options: ChatOptions | None = None,
        services: Services | None = None,
    ) -> None:
        """`completer` is ready, or a factory that is called in a thread while the app shows."""
        self.options = options or ChatOptions()
        super().__init__(self.options)
        self.services = services or Services()
        self.preferences = Preferences(self.services.preferences)
        factory: CompleterFactory = completer if callable(completer) else lambda _: completer
        self.worker = Worker(factory, self.post_message)
        catalog = self.services.catalog
        self.pulls = Pulls(catalog) if catalog is not None else None
        if self.services.terms is not None:
            self.services.terms.attach(self)
        self.disk = Disk()
        self.history = self._history()
        self._leaving = False
        self._told_by_disk = ""
        self.turns = Turns(lambda: self.hint("waiting for the disk"))
        self.loading = Loading(self)

    def _history(self) -> History | None:
        given = self.services.history
        if given is None or not callable(given):
            return given
        return opened_late(lambda: given(self._note_from_disk))

    # What is on the screen

    def compose(self) -> ComposeResult:
        """Conversation, input, status."""
        yield Transcript()
        yield StatsPanel()
        with Vertical(id="foot"):
            yield MessageInput(count_tokens=self._count_tokens)
            yield StatusBar()

    async def on_mount(self) -> None:
        """Show first, load then: importing and mapping a model must not delay the first frame."""
        home = self.screen_stack[0]
        self.transcript, self.box = home.query_one(Transcript), home.query_one(MessageInput)
        self.bar, self.panel = home.query_one(StatusBar), home.query_one(StatsPanel)
        session = Session(self.history, self.options, self._note_from_disk)
        self.dialogue = Dialogue(session, self.transcript, self.worker, self.disk, self)
        self.actions = Actions(self)
        self._use_keys()
        self._use_theme()
        self.box.focus()
        self.show_state("loading")
        signals.listen(lambda code: self.call_later(self.leave, ChatOutcome(code)))
        self.call_after_refresh(self._begin)

    def on_resize(self, event: events.Resize) -> None:
        """Where there is no room, say so over whatever is shown."""
        if is_too_small(event.size) and not isinstance(self.screen, TooSmallScreen):
            self.push_screen(TooSmallScreen())

    def _use_keys(self) -> None:
        """The keys that the user's file says."""
        if self.services.keys is not None:
            keymap = read_keymap(self.services.keys)
            self.set_keymap(dict(keymap.keys))
            if keymap.note:
                self.dialogue.note(keymap.note)

    def _use_theme(self) -> None:
        """The colours that the user left it with."""
        theme = self.preferences.get("theme")
        if theme in self.available_themes:
            self.theme = theme
        self.theme_changed_signal.subscribe(
            self, lambda theme: self.preferences.set("theme", theme.name)
        )

    async def _begin(self) -> None:
        """What may take a moment, behind the first frame."""
        gc.freeze()  # what was imported never goes: a full collection need not look at it
        self.run_worker(self.turns.run(), name="turns")
        if self.pulls is not None:
            self.pulls.listen(self.post_message)
        self._take_unsent()
        if self.history is not None:
            self.run_worker(self._recall(self.history), name="recall")
        if self.options.chat is not None:
            self.turns.add(partial(self._go_on_with, self.options.chat))
        else:
            self.loading.begin()
        if self.options.initial_message:
            self.box.remember(self.options.initial_message)
            self.turns.add(partial(self.dialogue.send, self.options.initial_message))

    async def _go_on_with(self, chat: str) -> None:
        """Open a chat, then load the models that it was switched to, unless others were named."""
        await self.actions.open_chat(chat, restores=False)
        settings = ChatSettings() if self.options.are_named else self.dialogue.session.settings
        await self.loading.begin_for(settings)

    async def _recall(self, history: History) -> None:
        """What was asked before can be recalled into the box."""
        try:
            self.box.recall(await self.disk.run(lambda: history.questions()))
        except EdgeSpecError as error:
            self.dialogue.note(str(error))

    def on_unmount(self) -> None:
        """However the app ends, its answers end too, and what came of them is kept."""
        signals.ignore()
        if self.is_ready_to_show:
            self._keep_unsent()
            self.dialogue.leave()
        self.worker.close()
        self.disk.close(lambda: None, _FLUSH_S)
        if self._told_by_disk and not (self._return_value and self._return_value.message):
            outcome = self._return_value or ChatOutcome()
            self._return_value = replace(outcome, message=self._told_by_disk)

    def _keep_unsent(self) -> None:
        """A message that waits is there at the next start, unless nothing is to be kept."""
        unsent = self.dialogue.waiting
        if unsent is not None and self._keeps:
            self.preferences.set(UNSENT, unsent)

    def _take_unsent(self) -> None:
        """Put what waited when the app was last left into the box."""
        unsent = self.preferences.get(UNSENT)
        if isinstance(unsent, str) and self._keeps:
            self.preferences.set(UNSENT, None)
            self.give_back(unsent, "this was not sent before you left")

    @property
    def _keeps(self) -> bool:
        """Whether what is said is kept."""
        return self.history is not None and not self.dialogue.session.is_incognito

    @property
    def is_ready_to_show(self) -> bool:
        """Whether the widgets are there."""
        return hasattr(self, "dialogue")

    @property
    def has_nothing_to_lose(self) -> bool:
        """Whether nothing was said yet, nor typed."""
        return not self.box.text and not self.dialogue.session.messages

    def _note_from_disk(self, line: str) -> None:
        self._told_by_disk = line
        with contextlib.suppress(RuntimeError):  # the event loop is closed: told at the end
            self.post_message(Notice(line))

    def _count_tokens(self, text: str) -> int | None:
        return self.worker.count_tokens(text)

    # Loading

    @on(LoadProgress)
    def _load_progress(self, event: LoadProgress) -> None:
        if not self._leaving:
            self.loading.progress(event.line)

    @on(Loaded)
    def _loaded(self, event: Loaded) -> None:
        if not self._leaving:
            self.loading.loaded(event.model)

    @on(LoadFailed)
    def _load_failed(self, event: LoadFailed) -> None:
        if not self._leaving:
            self.loading.failed_with(event.failure)

    @on(Notice)
    def _notice(self, event: Notice) -> None:
        if not self._leaving:
            self._told_by_disk = ""
            self.dialogue.note(event.line)

    @on(PullMoved)
    def _pull_moved(self, event: PullMoved) -> None:
        share = event.state.share
        how_far = f" {share:.0%}" if share is not None else ""
        self.change_status(background=f"pulling {event.state.name}{how_far}")

    @on(PullEnded)
    def _pull_ended(self, event: PullEnded) -> None:
        """Tell how a pull ended."""
        if self._leaving:
            return
        self.change_status(background="")
        if event.failure is not None:
            self.dialogue.note(f"{event.name} was not pulled: {event.failure.line}")
        elif not event.is_cancelled:
            self.dialogue.note(f"{event.name} is here")

    # Asking

    @on(MessageInput.Submitted)
    def _submitted(self, event: MessageInput.Submitted) -> None:
        if self._leaving:
            return
        if self.loading.failed is not None:
            self.give_back(event.text, f"no model is there · {WAYS_ON}")
        elif self.actions.editing is not None:
            self.turns.add(partial(self.actions.ask_edited, event.text))
        else:
            self.turns.add(partial(self.dialogue.send, event.text))

    @on(MessageInput.CommandGiven)
    async def _command_given(self, event: MessageInput.CommandGiven) -> None:
        await self.actions.run(event.command, event.argument)

    async def action_command(self, command: str) -> None:
        """A key, or the palette."""
        await self.actions.run(command)

    async def action_interrupt(self) -> None:
        """Ctrl+C."""
        await self.actions.interrupt()

    async def action_quit(self) -> None:
        """Leave."""
        self.leave(self.outcome)

    def action_scroll_transcript(self, direction: int) -> None:
        """Scroll one page up (-1) or down (1)."""
        if direction < 0:
            self.transcript.scroll_page_up(animate=False)
        else:
            self.transcript.scroll_page_down(animate=False)

    @on(Transcript.Step)
    def _stepped(self, event: Transcript.Step) -> None:
        self.turns.add(partial(self.actions.step_version, int(event.key), event.step))

    @on(AnswerProgress)
    def _answer_progress(self, event: AnswerProgress) -> None:
        self.dialogue.progress(event.job)

    @on(Answered)
    def _answered(self, event: Answered) -> None:
        if self.actions.summary.is_by(event.job):
            self.turns.add(partial(self.actions.summary.take, event.job, event.completion))
        else:
            self.turns.add(partial(self.dialogue.answered, event.job, event.completion))

    @on(AnswerFailed)
    def _answer_failed(self, event: AnswerFailed) -> None:
        if self.actions.summary.is_by(event.job):
            self.actions.summary.fail(event.failure)
        else:
            self.turns.add(partial(self.dialogue.failed, event.job, event.failure))

    def leave(self, outcome: ChatOutcome) -> None:
        """Leave at once; who made the completer sees to what still runs in it."""
        # From here on the widgets may be gone: nothing that still arrives is to be shown.
        self._leaving = True
        said = self.dialogue.last_turn() if self.options.inline else ""
        self.dialogue.leave()
        self.worker.close()
        self.exit(replace(outcome, said=said), return_code=outcome.exit_code)

    @property
    def outcome(self) -> ChatOutcome:
        """How the app ends if it ends now."""
        return self.loading.failed or ChatOutcome()
