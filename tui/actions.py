"""What the commands of `edgespec.tui.commands` do: `do_<id>` for each.

They act on the app (`edgespec.tui.app.ChatApp`). Screens are imported when they are shown: the
first frame does not wait for them. Larger ones have files of their own: `versions`,
`summary`, `loading`, `exporting`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from edgespec.chats import ChatSettings
from edgespec.errors import EdgeSpecError
from edgespec.tui import clipboard
from edgespec.tui.message_input import HINT_SECONDS
from edgespec.tui.settings import setting_lines, with_setting
from edgespec.tui.summary import Summary
from edgespec.tui.versions import Versions

if TYPE_CHECKING:
    from edgespec.tui.app import ChatApp
    from edgespec.tui.library import Opened
    from edgespec.tui.model_rows import Kind

IN_TURN = frozenset(
    {"new", "forget", "incognito", "regenerate", "plain", "continue", "previous", "next"}
    | {"system", "set", "export", "import"}
)
"""Commands that wait for the disk: they are done one after the other, the others at once."""

UNDO_HINT = "deleted · the library (Ctrl+L, then Ctrl+Z) brings it back"


class Actions(Versions):
    """See the module's docstring."""

    def __init__(self, app: ChatApp) -> None:
        """`app` is up: its widgets are there."""
        super().__init__(app)
        self.summary = Summary(app)
        self._confirm_quit_until = 0.0

    async def run(self, command: str, argument: str = "") -> None:
        """Do what a command is for, now or in turn; `argument` is "" if none was given."""
        work = partial(getattr(self, f"do_{command}"), argument)
        if command in IN_TURN:
            self._app.turns.add(work)
        else:
            await work()

    # Conversations

    async def do_new(self, _argument: str) -> None:
        """Begin another conversation; an answer under way is stopped and kept as it is."""
        await self._leave_conversation()
        await self._app.dialogue.show(self._app.dialogue.session.new)
        self._show_empty()

    async def do_incognito(self, _argument: str) -> None:
        """Begin a conversation of which nothing is kept, or end that."""
        session = self._app.dialogue.session
        is_incognito = not session.is_incognito
        await self._leave_conversation()
        await self._app.dialogue.show(lambda: session.set_incognito(is_incognito))
        self._app.change_status(is_incognito=is_incognito)
        self._show_empty()
        self._app.hint(
            "nothing of this is kept" if is_incognito else "conversations are kept again"
        )

    async def do_forget(self, _argument: str) -> None:
        """Delete this conversation, and what was learned from it."""
        history, chat = self._app.history, self._app.dialogue.session.chat
        await self._leave_conversation()
        if history is not None and chat is not None and not self._app.dialogue.session.is_incognito:
            try:
                await self._app.disk.run(lambda: history.delete(chat))
            except EdgeSpecError as error:
                self._stay(error)
                return
            self._app.hint(UNDO_HINT)
        await self._app.dialogue.show(self._app.dialogue.session.new)
        self._show_empty()

    async def do_library(self, argument: str) -> None:
        """Search what was said before, and go on with it."""
        from edgespec.tui.library import LibraryScreen

        history = self._app.history
        if history is None:
            self._app.hint("nothing is kept in this run")
        elif not isinstance(self._app.screen, LibraryScreen):
            screen = LibraryScreen(history, self._app.disk, argument)
            self._app.push_screen(screen, self._open_found)

    def _open_found(self, opened: Opened | None) -> None:
        if opened is not None:
            self._app.turns.add(partial(self.open_chat, opened.chat, opened.message))

    async def open_chat(
        self, chat: str, message: int | None = None, *, restores: bool = True
    ) -> None:
        """Show a kept conversation, at a message if one is given.

        `restores` has the models serve again that it was switched to.
        """
        session = self._app.dialogue.session
        await self._leave_conversation()
        try:
            await self._app.dialogue.show(lambda: session.open(chat))
            if message is not None and message in session.messages:
                await self._app.dialogue.show(lambda: session.go_to(message))
        except EdgeSpecError as error:
            self._stay(error)
            return
        self._app.change_status(is_incognito=False, stats=None, timings=None)
        if message is not None:
            self._app.transcript.jump_to(str(message))
        else:
            self._app.transcript.jump_to_end()
        if restores:
            await self._app.loading.restore(session.settings)

    async def _leave_conversation(self) -> None:
        self.end_editing()
        self.summary.drop()
        self._app.dialogue.take_back_waiting()
        self._app.dialogue.leave()
        if self._app.model is not None and not self._app.loading.is_under_way:
            self._app.show_state("ready")

    def _stay(self, error: EdgeSpecError) -> None:
        """The conversation that was to be left is shown on."""
        self._app.dialogue.refresh()
        self._app.dialogue.error(str(error))

    def _show_empty(self) -> None:
        if self._app.model is not None:
            self._app.show_welcome()
            self._app.change_status(stats=None, timings=None)

    async def do_summary(self, _argument: str) -> None:
        """Go on in a new conversation that knows a summary of this one."""
        self.summary.begin()

    # What a conversation is set to

    async def do_system(self, argument: str) -> None:
        """Set or show the system message."""
        session = self._app.dialogue.session
        if not argument:
            system = session.settings.system
            self._app.dialogue.note(f"system message: {system}" if system else "no system message")
            return
        system = None if argument == "none" else argument
        await self._set(dataclasses.replace(session.settings, system=system))
        self._app.hint("the system message holds from the next answer on")

    async def do_set(self, argument: str) -> None:
        """Set how answers are drawn, or show it."""
        session = self._app.dialogue.session
        if argument:
            try:
                settings = with_setting(session.settings, argument)
            except EdgeSpecError as error:
                self._app.dialogue.error(str(error))
                return
            await self._set(settings)
            self._app.hint("this holds from the next answer on")
        else:
            self._app.dialogue.note("\n".join(setting_lines(session.settings)))

    async def _set(self, settings: ChatSettings) -> None:
        await self._app.disk.run(lambda: self._app.dialogue.session.set(settings))

    async def keep_models(self, names: Mapping[Kind, str]) -> None:
        """The conversation was switched to these: they come back when it is reopened."""
        settings = self._app.dialogue.session.settings
        model = names.get("model", settings.model)
        drafter = names.get("drafter", settings.drafter)
        await self._set(dataclasses.replace(settings, model=model, drafter=drafter))

    async def do_model(self, argument: str) -> None:
        """Choose the model that answers."""
        self._app.loading.choose("model", argument)

    async def do_drafter(self, argument: str) -> None:
        """Choose what drafts."""
        self._app.loading.choose("drafter", argument)

    # Files

    async def do_attach(self, argument: str) -> None:
        """Attach a file to the message that is being written."""
        self._app.box.attach(argument)

    async def do_editor(self, _argument: str) -> None:
        """Write the message in the user's editor."""
        self._app.box.open_editor()

    async def do_export(self, argument: str) -> None:
        """Write this conversation to a file."""
        from edgespec.tui.exporting import export

        await export(self._app, argument)

    async def do_import(self, argument: str) -> None:
        """Take in conversations from a file."""
        from edgespec.tui.exporting import import_

        await import_(self._app, argument)

    # Looking

    async def do_copy(self, _argument: str) -> None:
        """Copy the last answer's Markdown."""
        answer = self._app.dialogue.session.last("assistant")
        text = answer.content if answer is not None else ""
        live = self._app.dialogue.live
        if live is not None:
            text = live.text
        self._app.hint(clipboard.copy(self._app, text) if text else "no answer to copy yet")

    async def do_sources(self, _argument: str) -> None:
        """Colour each token by who guessed it, or no longer."""
        self._app.transcript.tint = not self._app.transcript.tint
        self._app.change_status(
            legend=self._app.transcript.legend if self._app.transcript.tint else None
        )

    async def do_stats(self, _argument: str) -> None:
        """Show or hide what speculation did."""
        self._app.toggle_stats()

    async def do_theme(self, argument: str) -> None:
        """Change the colours."""
        if argument in self._app.available_themes:
            self._app.theme = argument
        elif argument:
            self._app.hint(f"there is no theme {argument}")
        else:
            self._app.search_themes()

    async def do_end(self, _argument: str) -> None:
        """Go to the end of the conversation."""
        self._app.transcript.jump_to_end()

    async def do_help(self, _argument: str) -> None:
        """Show the keys and what the numbers mean."""
        from edgespec.tui.help import HelpScreen

        if not isinstance(self._app.screen, HelpScreen):
            self._app.push_screen(HelpScreen())

    # Ending

    async def do_stop(self, _argument: str) -> None:
        """Stop the answer, take back what waits, or leave the editing."""
        if self.summary.is_under_way:
            self.summary.cancel()
        elif self.end_editing():
            pass
        elif self._app.loading.is_under_way and not self._app.dialogue.is_waiting:
            self._app.loading.cancel()
        else:
            self._app.dialogue.stop()

    async def interrupt(self) -> None:
        """Ctrl+C: copy what is selected, stop the answer, else quit, asking once more."""
        selected = self._app.screen.get_selected_text()
        now = time.monotonic()
        if selected:
            self._app.screen.clear_selection()
            self._app.hint(clipboard.copy(self._app, selected))
        elif self._app.dialogue.is_busy or self._app.dialogue.is_waiting:
            await self.do_stop("")
        elif self._app.box.text and self._app.model is not None and now > self._confirm_quit_until:
            self._confirm_quit_until = now + HINT_SECONDS
            self._app.hint("not sent yet · Ctrl+C again quits")
        else:
            self._app.leave(self._app.outcome)

    async def do_quit(self, _argument: str) -> None:
        """Stop what runs and leave."""
        self._app.leave(self._app.outcome)
