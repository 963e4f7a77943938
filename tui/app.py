"""The chat app: its state, and what each key and each message from the completer does to it.

All state lives here and changes only in handlers, on the event loop. An answer's life:

    Submitted -> Conversation.ask -> LiveAnswer -> AnswerProgress* (drawn as the pacer allows)
              -> Answered | AnswerFailed -> Conversation.answer or retract -> the waiting message
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import ClassVar

from textual import on
from textual._callback import invoke
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.command import Provider
from textual.containers import Vertical

from edgespec.protocols import Completer
from edgespec.tui import clipboard, commands, signals
from edgespec.tui.conversation import Conversation
from edgespec.tui.help import HelpScreen
from edgespec.tui.keymap import read_keymap
from edgespec.tui.live import LiveAnswer
from edgespec.tui.message_input import HINT_SECONDS, MessageInput
from edgespec.tui.options import ChatOptions, ChatOutcome
from edgespec.tui.pacing import Pacer
from edgespec.tui.remarks import remarks
from edgespec.tui.status import State, Status, StatusBar
from edgespec.tui.steady import SteadyApp
from edgespec.tui.transcript import Transcript
from edgespec.tui.worker import (
    Answered,
    AnswerFailed,
    AnswerProgress,
    CompleterFactory,
    Job,
    Loaded,
    LoadFailed,
    LoadProgress,
    Notice,
    Worker,
)
from edgespec.types import Completion

STATUS_INTERVAL = 0.25
"""Seconds between two changes of the numbers in the status bar: faster cannot be read."""


class ChatApp(SteadyApp):
    """A chat over a completer; `run` returns a `ChatOutcome` and prints nothing."""

    TITLE = "EdgeSpec"
    CSS_PATH = "chat.tcss"
    COMMANDS: ClassVar[set[type[Provider] | Callable[[], type[Provider]]]] = {
        commands.CommandProvider
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        *commands.bindings(),
        Binding("ctrl+c", "interrupt", "Stop or quit", show=False, system=True, id="interrupt"),
    ]

    def __init__(
        self, completer: Completer | CompleterFactory, options: ChatOptions | None = None
    ) -> None:
        """`completer` is ready, or a factory that is called in a thread while the app shows."""
        super().__init__()
        self._options = options or ChatOptions()
        factory: CompleterFactory = completer if callable(completer) else lambda _: completer
        self._worker = Worker(factory, self.post_message)
        self._conversation = Conversation(self._options)
        self._pacer = Pacer()
        self._status = Status()
        self._status_shown_at = 0.0
        self._live: LiveAnswer | None = None
        self._draw_due = False
        self._waiting: str | None = None
        self._num_dropped = 0
        self._failed: ChatOutcome | None = None
        self._confirm_quit_until = 0.0
        self._leaving = False

    # What is on the screen

    def compose(self) -> ComposeResult:
        """Conversation, input, status."""
        yield Transcript()
        with Vertical(id="foot"):
            yield MessageInput()
            yield StatusBar()

    async def on_mount(self) -> None:
        """Show first, load then: importing and mapping a model must not delay the first frame."""
        self._input.focus()
        self._set_state("loading")
        signals.listen(lambda code: self.call_later(self._leave, ChatOutcome(code)))
        await self._use_keys_of_the_user()
        if self._options.initial_message:
            self._input.remember(self._options.initial_message)
            await self._send(self._options.initial_message)
        self.call_after_refresh(self._worker.start)

    async def _use_keys_of_the_user(self) -> None:
        if self._options.keys is not None:
            keymap = read_keymap(self._options.keys)
            self.set_keymap(dict(keymap.keys))
            if keymap.note:
                await self._transcript.note(keymap.note)

    def on_unmount(self) -> None:
        """However the app ends, its answers end too."""
        signals.ignore()
        self._worker.close()

    @property
    def _transcript(self) -> Transcript:
        return self.screen_stack[0].query_one(Transcript)

    @property
    def _input(self) -> MessageInput:
        return self.screen_stack[0].query_one(MessageInput)

    def _set_state(self, state: State, detail: str = "", **changes: object) -> None:
        self._status = replace(self._status, state=state, detail=detail, **changes)  # type: ignore[arg-type]
        self.screen_stack[0].query_one(StatusBar).status = self._status
        self._status_shown_at = time.monotonic()
        busy = state in ("prefilling", "answering", "stopping")
        self._input.usual_hint = f"{'Esc stop' if busy else 'Enter send'} · F1 help"

    # Loading

    @on(LoadProgress)
    def _load_progress(self, event: LoadProgress) -> None:
        if not self._leaving:
            self._set_state("loading", detail=event.line)
            self._transcript.welcome(event.line)

    @on(Notice)
    async def _notice(self, event: Notice) -> None:
        if not self._leaving:
            await self._transcript.note(event.line)

    @on(Loaded)
    async def _loaded(self, event: Loaded) -> None:
        if self._leaving:
            return
        self._set_state("ready", model=event.model)
        self._transcript.welcome(event.model.description)
        await self._send_waiting()

    @on(LoadFailed)
    async def _load_failed(self, event: LoadFailed) -> None:
        """Leave at once with the error, unless that would lose what was typed meanwhile."""
        if self._leaving:
            return
        self._failed = ChatOutcome(event.failure.exit_code, event.failure.line)
        await self._take_back_waiting()
        if not self._input.text:
            self.exit(self._failed, return_code=self._failed.exit_code)
            return
        self._set_state("failed")
        await self._transcript.error(event.failure.line)
        await self._transcript.note("Ctrl+Q quits. What you typed stays until then.")

    # Sending

    @on(MessageInput.Submitted)
    async def _submitted(self, event: MessageInput.Submitted) -> None:
        if self._leaving:
            return
        if self._failed is not None:
            self._input.give_back(event.text)
            self._input.show_hint("no model was loaded · Ctrl+Q quits")
        elif self._waiting is not None:
            self._input.give_back(event.text)
            self._input.show_hint("one message is waiting already")
        else:
            await self._send(event.text)

    async def _send(self, text: str) -> None:
        """Ask now, or let the message wait for the model or for the answer under way."""
        waiting = self._status.model is None or self._live is not None
        await self._transcript.question(text, waiting=waiting)
        if waiting:
            self._waiting = text
            self._input.show_hint("sent as soon as the model is free · Esc takes it back")
        else:
            self._ask(text)

    async def _send_waiting(self) -> None:
        if self._waiting is not None:
            text, self._waiting = self._waiting, None
            self._transcript.release()
            self._ask(text)

    async def _take_back_waiting(self) -> None:
        if self._waiting is not None:
            self._input.give_back(self._waiting)
            self._waiting = None
            await self._transcript.withdraw()

    def _ask(self, text: str) -> None:
        job = self._worker.ask(self._conversation.ask(text))
        self._live = LiveAnswer(job, self._transcript)
        self._pacer.begin()
        self._set_state("prefilling")

    def _is_live(self, job: Job) -> bool:
        """False for a job whose conversation was left meanwhile."""
        return self._live is not None and self._live.job is job

    # Answers

    @on(AnswerProgress)
    async def _answer_progress(self, event: AnswerProgress) -> None:
        if not self._is_live(event.job) or self._draw_due:
            return
        delay = self._pacer.delay()
        if delay:
            self._draw_due = True
            self.set_timer(delay, self._draw, name="draw")
        else:
            await self._draw()

    async def _draw(self) -> None:
        self._draw_due = False
        if self._live is None:
            return
        self._pacer.redraw()
        chunk = await self._live.draw()
        state: State = "stopping" if self._live.stopping else "answering"
        stale = time.monotonic() - self._status_shown_at >= STATUS_INTERVAL
        if chunk is not None and (stale or state != self._status.state):
            self._set_state(state, stats=chunk.stats, timings=chunk.timings)

    @on(Answered)
    async def _answered(self, event: Answered) -> None:
        if self._live is None or not self._is_live(event.job):
            return
        completion = event.completion
        text = completion.text
        await self._live.settle(text)
        self._live = None
        if text or completion.finish_reason != "cancelled":
            self._conversation.answer(text)
        else:
            self._input.give_back(self._conversation.retract())
            self._input.show_hint("stopped before the answer began")
            await self._transcript.retract()
        await self._conclude(completion)
        self._set_state("ready")
        await self._send_waiting()

    async def _conclude(self, completion: Completion) -> None:
        """Show the final numbers and what else there is to say."""
        self._set_state("ready", stats=completion.stats, timings=completion.timings)
        for line in remarks(completion, self._options.max_tokens, self._num_dropped):
            await self._transcript.note(line)
        self._num_dropped = completion.num_dropped_messages

    @on(AnswerFailed)
    async def _answer_failed(self, event: AnswerFailed) -> None:
        """Say what went wrong; the chat goes on, and the message can be sent again."""
        if self._live is None or not self._is_live(event.job):
            return
        await self._live.draw()
        text, self._live = self._live.text, None
        await self._take_back_waiting()
        if event.failure.is_death:
            self._conversation.cut(text)
            await self._transcript.error(f"{event.failure.line} · Ctrl+R asks again")
            self._set_state("ready")
            return
        await self._transcript.error(event.failure.line)
        if text:
            self._conversation.answer(text)
        else:
            self._input.give_back(self._conversation.retract())
        self._set_state("ready")

    # Commands and keys

    @on(MessageInput.CommandGiven)
    async def _command_given(self, event: MessageInput.CommandGiven) -> None:
        await self.action_command(event.command, event.argument)

    async def action_command(self, command: str, argument: str = "") -> None:
        """Do what a row of `commands.COMMANDS` says."""
        actions: dict[str, Callable[[], object]] = {
            "stop": self.action_stop,
            "quit": self.action_quit,
            "new": self.action_new_conversation,
            "regenerate": self.action_send_again,
            "copy": self.action_copy_answer,
            "help": self.action_help,
            "theme": self.action_change_theme,
            "attach": partial(self._input.attach, argument),
            "editor": self._input.open_editor,
            "end": partial(self._transcript.scroll_end, animate=False),
        }
        action = actions.get(command)
        if action is None:
            self._input.show_hint(f"this chat has no {commands.BY_ID[command].title.lower()}")
        else:
            await invoke(action)

    async def action_stop(self) -> None:
        """Stop the answer, and take back a message that waits."""
        await self._take_back_waiting()
        if self._live is not None:
            self._set_state("stopping")
            self._live.job.cancel()

    async def action_send_again(self) -> None:
        """Ask once more what the engine died in."""
        again = self._conversation.again() if self._live is None and not self._leaving else None
        if again is not None:
            await self._send(again)
        else:
            self._input.show_hint("nothing to send again")

    async def action_interrupt(self) -> None:
        """Ctrl+C: stop the answer, else quit, asking once more if something is typed."""
        now = time.monotonic()
        if self._live is not None or self._waiting is not None:
            await self.action_stop()
        elif self._input.text and self._failed is None and now > self._confirm_quit_until:
            self._confirm_quit_until = now + HINT_SECONDS
            self._input.show_hint("not sent yet · Ctrl+C again quits")
        else:
            await self.action_quit()

    async def action_quit(self) -> None:
        """Stop what runs and leave."""
        self._leave(self._failed or ChatOutcome())

    def _leave(self, outcome: ChatOutcome) -> None:
        """Leave at once; who made the completer sees to what still runs in it."""
        # From here on the widgets may be gone: nothing that still arrives is to be shown.
        self._leaving, self._live = True, None
        self._worker.close()
        self.exit(outcome, return_code=outcome.exit_code)

    async def action_new_conversation(self) -> None:
        """Forget the conversation; an answer under way is stopped and dropped."""
        await self._take_back_waiting()
        if self._live is not None:
            self._live.job.cancel()
            self._live = None
        self._conversation.clear()
        self._num_dropped = 0
        await self._transcript.clear()
        if self._status.model is not None:
            self._transcript.welcome(self._status.model.description)
            self._set_state("ready", stats=None, timings=None)

    def action_copy_answer(self) -> None:
        """Copy the last answer's Markdown to the clipboard of the user's terminal."""
        answer = self._transcript.last_answer
        line = clipboard.copy(self, answer) if answer else "no answer to copy yet"
        self._input.show_hint(line)

    def action_scroll_transcript(self, direction: int) -> None:
        """Scroll one page up (-1) or down (1)."""
        if direction < 0:
            self._transcript.scroll_page_up(animate=False)
        else:
            self._transcript.scroll_page_down(animate=False)

    def action_help(self) -> None:
        """Show the help screen."""
        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen())
