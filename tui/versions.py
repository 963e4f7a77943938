"""Commands that make or show another version of a question or an answer."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgespec.tui.app import ChatApp

EDITING_HINT = "Enter asks this version · Esc leaves the old one"


class Versions:
    """The base of `edgespec.tui.actions.Actions`; knows which question is being edited."""

    def __init__(self, app: ChatApp) -> None:
        self._app = app
        self._editing: int | None = None

    @property
    def editing(self) -> int | None:
        """The question of which another version is being written."""
        return self._editing

    @editing.setter
    def editing(self, question: int | None) -> None:
        self._editing = question
        self._app.show_usual_hint()

    async def do_regenerate(self, _argument: str) -> None:
        """Another answer to the last question; a model that is not there is tried again first."""
        if self._app.loading.failed is not None:
            self._app.loading.begin()
            return
        session = self._app.dialogue.session
        question = session.last("user")
        if question is None:
            self._app.hint("nothing was asked yet")
            return
        await self._app.dialogue.start(lambda: session.again(question.id))

    async def do_plain(self, _argument: str) -> None:
        """The last answer once more without speculation, beside the first."""
        session = self._app.dialogue.session
        answer = session.last("assistant")
        if answer is None or not answer.content:
            self._app.hint("there is no answer yet")
            return
        await self._app.dialogue.start(lambda: session.plain(answer.id))

    async def do_continue(self, _argument: str) -> None:
        """Go on with the last answer where it was cut."""
        session = self._app.dialogue.session
        answer = session.last("assistant")
        if answer is None or answer.state != "cut" or not answer.content:
            self._app.hint("the last answer is whole")
            return
        await self._app.dialogue.start(lambda: session.go_on(answer.id))

    async def do_edit(self, _argument: str) -> None:
        """Edit the last question, or the one before the one being edited."""
        questions = [each for each in self._app.dialogue.session.path if each.role == "user"]
        if self.editing is not None:
            earlier = [each.id for each in questions]
            place = earlier.index(self.editing) if self.editing in earlier else 0
            questions = questions[:place]
        if not questions:
            self._app.hint(
                "there is no earlier question" if self.editing else "nothing was asked yet"
            )
            return
        question = questions[-1]
        if self.editing is None and self._app.box.text:
            self._app.box.remember(self._app.box.text)
        self.editing = question.id
        self._app.box.replace_message(question.content)
        self._app.transcript.jump_to(str(question.id))

    async def ask_edited(self, text: str) -> None:
        """The new version of the question that was edited."""
        question, session = self.editing, self._app.dialogue.session
        if self._app.dialogue.is_busy or self._app.model is None:
            self._app.give_back(text, "the model is busy · Esc leaves the old version")
        elif question is not None:
            self.editing = None
            await self._app.dialogue.start(lambda: session.edit(question, text))

    def end_editing(self) -> bool:
        """Leave the question as it was; False if none was edited."""
        if self.editing is None:
            return False
        self.editing = None
        self._app.box.replace_message("")
        self._app.transcript.jump_to_end()
        return True

    async def do_previous(self, _argument: str) -> None:
        """Show the version before."""
        await self._step(-1)

    async def do_next(self, _argument: str) -> None:
        """Show the version after."""
        await self._step(1)

    async def _step(self, by: int) -> None:
        """Step at the last message that has such a version."""
        session = self._app.dialogue.session
        for message in reversed(session.path):
            versions = session.versions(message.id)
            if 0 <= versions.index(message.id) + by < len(versions):
                await self.step_version(message.id, by)
                return
        self._app.hint("there is no other version")

    async def step_version(self, message: int, by: int) -> None:
        """Show the version so many places from this one, if there is one."""
        session = self._app.dialogue.session
        if self._app.dialogue.is_busy:
            self._app.hint("an answer is under way · Esc stops it")
            return
        versions = session.versions(message)
        place = versions.index(message) + by
        if 0 <= place < len(versions):
            await self._app.dialogue.show(partial(session.go_to, versions[place]))
            self.end_editing()
