"""What the commands of `edgespec.tui.commands` do: `command_<id>` for each, `action_<id>` for keys."""

from __future__ import annotations

import dataclasses
import os
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from textual import work

from edgespec.chats import Chat, ChatHead, ChatSettings
from edgespec.errors import EdgeSpecError
from edgespec.tui import clipboard
from edgespec.tui.help import HelpScreen
from edgespec.tui.library import LibraryScreen
from edgespec.tui.message_input import HINT_SECONDS
from edgespec.tui.models_screen import Chosen, ModelsScreen
from edgespec.tui.services import ExportForm
from edgespec.tui.settings import setting_lines, with_setting
from edgespec.tui.steady import SteadyApp

if TYPE_CHECKING:
    from edgespec.reports import Report
    from edgespec.tui.model_rows import Kind
    from edgespec.tui.pulls import Pulls
    from edgespec.tui.stats_view import Insight
    from edgespec.tui.dialogue import Dialogue
    from edgespec.tui.disk import Disk
    from edgespec.tui.failure import Failure
    from edgespec.tui.message_input import MessageInput
    from edgespec.tui.options import ChatOptions, ChatOutcome
    from edgespec.tui.preferences import Preferences
    from edgespec.tui.services import Services
    from edgespec.tui.transcript import Transcript
    from edgespec.tui.worker import Job, Worker
    from edgespec.types import Chunk, Completion, ServedModel

UNDO_HINT = "deleted · the library (^L, then ^Z) brings it back"


class Actions(SteadyApp):
    """The commands; `edgespec.tui.app.ChatApp` is what they act on."""

    options: ChatOptions
    services: Services
    preferences: Preferences
    worker: Worker
    disk: Disk
    dialogue: Dialogue
    transcript: Transcript
    box: MessageInput
    pulls: Pulls | None
    insight: Insight | None = None
    serving: tuple[str, str] | None = None
    editing: int | None = None
    _summary: Job | None = None
    _confirm_quit_until = 0.0

    if TYPE_CHECKING:  # what ChatApp has

        @property
        def model(self) -> ServedModel | None: ...
        @property
        def outcome(self) -> ChatOutcome: ...
        def hint(self, line: str) -> None: ...
        def leave(self, outcome: ChatOutcome) -> None: ...
        def change_status(self, **changes: object) -> None: ...
        def refresh_stats(self) -> None: ...
        def toggle_stats(self) -> None: ...
        def show_state(self, state: str, chunk: Chunk | None = None, detail: str = "") -> None: ...

    async def run_command(self, command: str, argument: str = "") -> None:
        """Do what a command is for; `argument` is "" for those that were given none."""
        await getattr(self, f"command_{command}")(argument)

    async def action_command(self, command: str) -> None:
        """A key for a command."""
        await self.run_command(command)

    def use_preferences(self) -> None:
        """Look as the user left it."""
        theme = self.preferences.get("theme")
        if theme in self.available_themes:
            self.theme = theme
        self.theme_changed_signal.subscribe(
            self.transcript, lambda theme: self.preferences.set("theme", theme.name)
        )

    # Conversations

    async def command_new(self, _argument: str) -> None:
        """Begin another conversation; an answer under way is stopped and kept as it is."""
        await self._leave_conversation()
        await self.dialogue.show(self.dialogue.session.new)
        self._show_empty()

    async def command_incognito(self, _argument: str) -> None:
        """Begin a conversation of which nothing is kept, or end that."""
        session = self.dialogue.session
        is_incognito = not session.is_incognito
        await self._leave_conversation()
        await self.dialogue.show(lambda: session.set_incognito(is_incognito))
        self.change_status(is_incognito=is_incognito)
        self._show_empty()
        self.hint("nothing of this is kept" if is_incognito else "conversations are kept again")

    async def command_forget(self, _argument: str) -> None:
        """Delete this conversation, and what was learned from it."""
        history, chat = self.services.history, self.dialogue.session.chat
        await self._leave_conversation()
        if history is not None and chat is not None and not self.dialogue.session.is_incognito:
            await self._on_disk(lambda: history.delete(chat), UNDO_HINT)
        await self.dialogue.show(self.dialogue.session.new)
        self._show_empty()

    async def command_library(self, argument: str) -> None:
        """Search what was said before, and go on with it."""
        history = self.services.history
        if history is None:
            self.hint("nothing is kept in this run")
        elif not isinstance(self.screen, LibraryScreen):
            self._open_from_library(LibraryScreen(history, self.disk, argument))

    @work(group="library-screen")
    async def _open_from_library(self, screen: LibraryScreen) -> None:
        opened = await self.push_screen_wait(screen)
        if opened is not None:
            await self.open_chat(opened.chat, opened.message)

    async def open_chat(self, chat: str, message: int | None = None) -> None:
        """Show a kept conversation, at a message if one is given."""
        session = self.dialogue.session
        await self._leave_conversation()
        try:
            await self.dialogue.show(lambda: session.open(chat))
            if message is not None and message in session.messages:
                await self.dialogue.show(lambda: session.go_to(message))
        except EdgeSpecError as error:
            self.dialogue.error(str(error))
            return
        self.change_status(is_incognito=False, stats=None, timings=None)
        if message is not None:
            self.transcript.jump_to(str(message))
        else:
            self.transcript.jump_to_end()

    async def _leave_conversation(self) -> None:
        self.end_editing()
        self.dialogue.take_back_waiting()
        self.dialogue.leave()

    def _show_empty(self) -> None:
        if self.model is not None:
            self.transcript.welcome([self.model.description])
            self.change_status(state="ready", stats=None, timings=None, detail="")

    # Versions

    async def command_regenerate(self, _argument: str) -> None:
        """Another answer to the last question; what the engine died of is asked again."""
        session = self.dialogue.session
        question = session.last("user")
        if question is None:
            self.hint("nothing was asked yet")
            return
        await self.dialogue.start(lambda: session.again(question.id))

    async def command_plain(self, _argument: str) -> None:
        """The last answer once more without speculation, beside the first."""
        session = self.dialogue.session
        answer = session.last("assistant")
        if answer is None or not answer.content:
            self.hint("there is no answer yet")
            return
        await self.dialogue.start(lambda: session.plain(answer.id))

    async def command_continue(self, _argument: str) -> None:
        """Go on with the last answer where it was cut."""
        session = self.dialogue.session
        answer = session.last("assistant")
        if answer is None or answer.state != "cut" or not answer.content:
            self.hint("the last answer is whole")
            return
        await self.dialogue.start(lambda: session.go_on(answer.id))

    async def command_edit(self, _argument: str) -> None:
        """Edit the last question, or the one before the one being edited."""
        questions = [each for each in self.dialogue.session.path if each.role == "user"]
        if self.editing is not None:
            earlier = [each.id for each in questions]
            place = earlier.index(self.editing) if self.editing in earlier else 0
            questions = questions[:place]
        if not questions:
            self.hint("there is no earlier question" if self.editing else "nothing was asked yet")
            return
        question = questions[-1]
        if self.editing is None and self.box.text:
            self.box.remember(self.box.text)
        self.editing = question.id
        self.box.replace_message(question.content)
        self.transcript.jump_to(str(question.id))
        self.hint("Enter asks this version · Esc leaves the old one")

    async def ask_edited(self, text: str) -> None:
        """The new version of the question that was edited."""
        question, session = self.editing, self.dialogue.session
        self.editing = None
        assert question is not None
        await self.dialogue.start(lambda: session.edit(question, text))

    def end_editing(self) -> bool:
        """Leave the question as it was; False if none was edited."""
        if self.editing is None:
            return False
        self.editing = None
        self.box.replace_message("")
        self.transcript.jump_to_end()
        return True

    async def command_previous(self, _argument: str) -> None:
        """Show the version before."""
        await self._step(-1)

    async def command_next(self, _argument: str) -> None:
        """Show the version after."""
        await self._step(1)

    async def _step(self, by: int) -> None:
        session = self.dialogue.session
        if self.dialogue.is_busy:
            self.hint("an answer is under way · Esc stops it")
            return
        for message in reversed(session.path):
            versions = session.versions(message.id)
            place = versions.index(message.id) + by
            if 0 <= place < len(versions):
                await self.dialogue.show(partial(session.go_to, versions[place]))
                self.end_editing()
                return
        self.hint("there is no other version")

    async def command_summary(self, _argument: str) -> None:
        """Go on in a new conversation that knows a summary of this one."""
        session = self.dialogue.session
        if self.model is None or self.dialogue.is_busy or self._summary is not None:
            self.hint("an answer is under way · Esc stops it")
        elif not session.messages:
            self.hint("nothing was said yet")
        else:
            self._summary = self.worker.ask(session.summary_request())
            self.show_state("prefilling", detail="summing up")

    def take_summary(self, job: Job, completion: Completion) -> bool:
        """Begin the conversation that a summary is for; False if this is no summary."""
        if job is not self._summary:
            return False
        self._summary = None
        session, model = self.dialogue.session, self.model
        if completion.finish_reason == "cancelled" or not completion.text.strip():
            self.hint("no summary was made")
        else:
            name = model.name if model else ""
            self.call_later(
                self.dialogue.show, lambda: session.begin_with_summary(completion.text, name)
            )
        self.show_state("ready")
        return True

    def drop_summary(self, job: Job, failure: Failure) -> bool:
        """A summary failed; False if this was none."""
        if job is not self._summary:
            return False
        self._summary = None
        self.dialogue.error(failure.line)
        self.show_state("ready")
        return True

    # What a conversation is set to

    async def command_system(self, argument: str) -> None:
        """Set or show the system message."""
        session = self.dialogue.session
        if not argument:
            system = session.settings.system
            self.dialogue.note(f"system message: {system}" if system else "no system message")
            return
        system = None if argument == "none" else argument
        await self._set(dataclasses.replace(session.settings, system=system))
        self.hint("the system message holds from the next answer on")

    async def command_set(self, argument: str) -> None:
        """Set how answers are drawn, or show it."""
        session = self.dialogue.session
        if argument:
            try:
                settings = with_setting(session.settings, argument)
            except EdgeSpecError as error:
                self.dialogue.error(str(error))
                return
            await self._set(settings)
            self.hint("this holds from the next answer on")
        else:
            self.dialogue.note("\n".join(setting_lines(session.settings)))

    async def _set(self, settings: ChatSettings) -> None:
        await self.disk.run(lambda: self.dialogue.session.set(settings))

    async def command_model(self, argument: str) -> None:
        """Choose the model that answers."""
        self.choose_model("model", argument)

    async def command_drafter(self, argument: str) -> None:
        """Choose what drafts."""
        self.choose_model("drafter", argument)

    def choose_model(self, kind: Kind, name: str) -> None:
        """Take another model, or show what there is."""
        catalog, pulls = self.services.catalog, self.pulls
        if self.services.load is None or catalog is None or pulls is None:
            self.hint("models cannot be changed here")
        elif name:
            self._switch(Chosen(kind, name))
        elif not isinstance(self.screen, ModelsScreen):
            target, drafter = self._serving
            self._open_models(ModelsScreen(catalog, pulls, target, drafter, kind))

    @work(group="models-screen")
    async def _open_models(self, screen: ModelsScreen) -> None:
        chosen = await self.push_screen_wait(screen)
        if chosen is not None:
            self._switch(chosen)

    @property
    def _serving(self) -> tuple[str, str]:
        """Names of the model that answers and of what drafts, as they were asked for."""
        if self.serving is not None:
            return self.serving
        return (self.model.name, "auto") if self.model is not None else ("", "auto")

    def _switch(self, chosen: Chosen) -> None:
        """Load another model behind the screen; the one before goes on if that fails."""
        load = self.services.load
        assert load is not None
        if self.dialogue.is_busy:
            self.dialogue.stop()
        target, drafter = self._serving
        wanted = (chosen.name, drafter) if chosen.kind == "model" else (target, chosen.name)

        def switch(report: Report) -> None:
            load(wanted[0], wanted[1], report)
            self.serving = wanted

        self.worker.load_again(switch)

    # Files

    async def command_attach(self, argument: str) -> None:
        """Attach a file to the message that is being written."""
        self.box.attach(argument)

    async def command_editor(self, _argument: str) -> None:
        """Write the message in the user's editor."""
        self.box.open_editor()

    async def command_export(self, argument: str) -> None:
        """Write this conversation to a file: `/export [md|json] [PATH]`."""
        write, session = self.services.write_chat, self.dialogue.session
        if write is None or not session.messages:
            self.hint("there is nothing to export yet")
            return
        first, _, rest = argument.partition(" ")
        form: ExportForm = "json" if first == "json" or argument.endswith(".json") else "md"
        name = rest if first in get_args(ExportForm) else argument
        default = f"chat-{time.strftime('%Y%m%d-%H%M%S')}.{form}"
        path = Path(name.strip() or default).expanduser()
        text = write(self._whole_chat(), form)
        await self._on_disk(lambda: _write_new(path, text), f"written to {path}")

    def _whole_chat(self) -> Chat:
        session = self.dialogue.session
        path = session.path
        title = path[0].content.splitlines()[0][:80] if path else ""
        head = ChatHead(
            session.chat or "", title, path[0].created, path[-1].created, len(session.messages)
        )
        return Chat(head, session.settings, tuple(session.messages.values()), session.tip)

    async def command_import(self, argument: str) -> None:
        """Take in conversations that EdgeSpec, ChatGPT or Open WebUI exported."""
        read = self.services.read_chats
        if read is None or not argument:
            self.hint("name a file: /import PATH")
            return
        path = Path(argument).expanduser()
        try:
            number = await self.disk.run(lambda: read(path))
        except (EdgeSpecError, OSError) as error:
            self.dialogue.error(str(error))
            return
        self.dialogue.note(f"{number} conversations came in from {path.name} · ^L shows them")

    async def _on_disk(self, work: object, done: str) -> None:
        try:
            await self.disk.run(work)  # type: ignore[arg-type]
        except (EdgeSpecError, OSError) as error:
            self.dialogue.error(str(error))
        else:
            self.dialogue.note(done)

    # Looking

    async def command_copy(self, _argument: str) -> None:
        """Copy the last answer's Markdown."""
        answer = self.dialogue.session.last("assistant")
        text = answer.content if answer is not None else ""
        live = self.dialogue.live
        if live is not None:
            text = live.text
        self.hint(clipboard.copy(self, text) if text else "no answer to copy yet")

    async def command_sources(self, _argument: str) -> None:
        """Colour each token by who guessed it, or no longer."""
        self.transcript.tint = not self.transcript.tint
        self.change_status(legend=self.transcript.legend if self.transcript.tint else None)

    async def command_stats(self, _argument: str) -> None:
        """Show or hide what speculation did."""
        self.toggle_stats()

    @work(exclusive=True, group="insight")
    async def ask_insight(self) -> None:
        """Ask the engine what it knows besides, for the panel."""
        if self.model is not None:
            self.insight = await self.disk.run(self.worker.insight)
            self.refresh_stats()

    async def command_theme(self, argument: str) -> None:
        """Change the colours."""
        if argument in self.available_themes:
            self.theme = argument
        elif argument:
            self.hint(f"there is no theme {argument}")
        else:
            self.search_themes()

    async def command_end(self, _argument: str) -> None:
        """Go to the end of the conversation."""
        self.transcript.jump_to_end()

    async def command_help(self, _argument: str) -> None:
        """Show the keys and what the numbers mean."""
        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen())

    def action_scroll_transcript(self, direction: int) -> None:
        """Scroll one page up (-1) or down (1)."""
        if direction < 0:
            self.transcript.scroll_page_up(animate=False)
        else:
            self.transcript.scroll_page_down(animate=False)

    # Ending

    async def command_stop(self, _argument: str) -> None:
        """Stop the answer, take back what waits, or leave the editing."""
        if self._summary is not None:
            self._summary.cancel()
        elif not self.end_editing():
            self.dialogue.stop()

    async def action_interrupt(self) -> None:
        """Ctrl+C: copy what is selected, stop the answer, else quit, asking once more."""
        selected = self.screen.get_selected_text()
        now = time.monotonic()
        if selected:
            self.screen.clear_selection()
            self.hint(clipboard.copy(self, selected))
        elif self.dialogue.is_busy or self.dialogue.is_waiting or self._summary is not None:
            await self.command_stop("")
        elif self.box.text and self.model is not None and now > self._confirm_quit_until:
            self._confirm_quit_until = now + HINT_SECONDS
            self.hint("not sent yet · Ctrl+C again quits")
        else:
            await self.action_quit()

    async def command_quit(self, _argument: str) -> None:
        """Stop what runs and leave."""
        await self.action_quit()

    async def action_quit(self) -> None:
        """Leave."""
        self.leave(self.outcome)


def _write_new(path: Path, text: str) -> None:
    """Write a file that is not there yet; raises EdgeSpecError if it is, or cannot be."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
    except FileExistsError as error:
        raise EdgeSpecError(f"{path} is there already", "choose another name") from error
    except OSError as error:
        raise EdgeSpecError(
            f"{path} cannot be written ({error.strerror})", "name another"
        ) from error
