"""A conversation that fills its context goes on in a new one that knows a summary of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgespec.tui.failure import Failure
from edgespec.tui.worker import Job
from edgespec.types import Completion

if TYPE_CHECKING:
    from edgespec.tui.app import ChatApp


class Summary:
    """At most one summary is under way; it is shown as a state, not as an answer."""

    def __init__(self, app: ChatApp) -> None:
        self._app = app
        self._job: Job | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether the model sums up just now."""
        return self._job is not None

    def begin(self) -> None:
        """Have the model sum up."""
        app, session = self._app, self._app.dialogue.session
        if app.model is None or app.dialogue.is_busy:
            app.hint("the model is busy · Esc stops it")
        elif not session.messages:
            app.hint("nothing was said yet")
        else:
            self._job = app.worker.ask(session.summary_request(app.model.num_context))
            app.show_state("prefilling", detail="summing up")

    def cancel(self) -> None:
        """Stop it."""
        if self._job is not None:
            self._job.cancel()

    def drop(self) -> None:
        """Stop it, and make nothing of it: its conversation is being left."""
        self.cancel()
        self._job = None

    def is_by(self, job: Job) -> bool:
        """Whether it is this job that sums up."""
        return job is self._job

    async def take(self, job: Job, completion: Completion) -> None:
        """Begin the conversation that a summary is for, unless it was dropped."""
        if job is not self._job:
            return
        self._job = None
        app, text = self._app, completion.text.strip()
        if completion.finish_reason == "cancelled" or not text:
            app.hint("no summary was made")
        else:
            name, session = app.model.name if app.model else "", app.dialogue.session
            await app.dialogue.show(lambda: session.begin_with_summary(text, name))
        app.show_state("ready")
        await app.dialogue.send_waiting()

    def fail(self, failure: Failure) -> None:
        """Tell what went wrong."""
        self._job = None
        self._app.dialogue.take_back_waiting()
        self._app.dialogue.error(failure.line)
        self._app.show_state("ready")
