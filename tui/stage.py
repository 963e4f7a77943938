"""What the chat app shows around a conversation: status line, hints, welcome, figures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from edgespec.tui.options import ChatOptions
from edgespec.tui.stats_view import Insight, insight_of, stats_view
from edgespec.tui.status import State, Status
from edgespec.tui.steady import SteadyApp
from edgespec.tui.versions import EDITING_HINT
from edgespec.types import Chunk, ServedModel

if TYPE_CHECKING:
    from edgespec.tui.actions import Actions
    from edgespec.tui.dialogue import Dialogue
    from edgespec.tui.loading import Loading
    from edgespec.tui.message_input import MessageInput
    from edgespec.tui.stats import StatsPanel
    from edgespec.tui.status import StatusBar
    from edgespec.tui.transcript import Transcript
    from edgespec.tui.worker import Worker

STATUS_INTERVAL = 0.25
"""Seconds between two changes of the numbers in the status bar: faster cannot be read."""

_FIRST_STEPS = "/ commands · @ files · F1 all keys"


class StageApp(SteadyApp):
    """The base of `edgespec.tui.app.ChatApp`; implements `edgespec.tui.dialogue.Stage`."""

    worker: Worker
    loading: Loading
    dialogue: Dialogue
    actions: Actions
    transcript: Transcript
    box: MessageInput
    bar: StatusBar
    panel: StatsPanel

    def __init__(self, options: ChatOptions) -> None:
        super().__init__(is_inline=options.inline)
        self._status = Status(is_incognito=options.incognito)
        self._status_shown_at = 0.0
        self._insight: Insight | None = None

    @property
    def model(self) -> ServedModel | None:
        """The loaded model; None while there is none."""
        return self._status.model

    @property
    def state(self) -> State:
        """What the status line says is happening."""
        return self._status.state

    @property
    def is_occupied(self) -> bool:
        """Whether the model sums up, or is being changed."""
        is_changed = self.loading.is_under_way and self.model is not None
        return self.actions.summary.is_under_way or is_changed

    def show_state(self, state: State, chunk: Chunk | None = None, detail: str = "") -> None:
        """Tell in the status line what happens; numbers change slowly enough to be read."""
        is_stale = time.monotonic() - self._status_shown_at >= STATUS_INTERVAL
        if state == self._status.state and state in ("answering", "prefilling") and not is_stale:
            return
        changes = {} if chunk is None else {"stats": chunk.stats, "timings": chunk.timings}
        self._set_state(state, detail, **changes)
        if chunk is not None:
            self.refresh_stats()
            if state == "ready":  # an answer taught the engine something
                self._renew_insight()

    def give_back(self, text: str, hint: str) -> None:
        """Put a message that came to nothing back into the box."""
        self.box.give_back(text)
        if hint:
            self.box.show_hint(hint)

    def hint(self, line: str) -> None:
        """Say something for a moment."""
        self.box.show_hint(line)

    def later(self, seconds: float, work: Callable[[], object]) -> None:
        """Do `work` when so many seconds have passed."""
        self.set_timer(seconds, work, name="draw")

    def _set_state(self, state: State, detail: str = "", **changes: object) -> None:
        self._status = replace(self._status, state=state, detail=detail, **changes)  # type: ignore[arg-type]
        self.show_status()
        self.show_usual_hint()

    def show_usual_hint(self) -> None:
        """Say which keys matter now."""
        if self.actions.editing is not None:
            self.box.usual_hint = EDITING_HINT
        else:
            busy = self.state in ("prefilling", "answering", "stopping")
            self.box.usual_hint = f"{'Esc stop' if busy else 'Enter send'} · F1 help"

    def show_welcome(self) -> None:
        """Say who answers and where to begin, as long as nothing was said."""
        if self.model is not None:
            kept = ["", "nothing of this conversation is kept"] * self._status.is_incognito
            self.transcript.welcome([self.model.name, "", _FIRST_STEPS, *kept])

    def change_status(self, **changes: object) -> None:
        """Show something else in the status line, in the same state."""
        self._status = replace(self._status, **changes)  # type: ignore[arg-type]
        self.show_status()

    def show_status(self) -> None:
        """Draw the status line."""
        self.bar.status = self._status
        self._status_shown_at = time.monotonic()

    def refresh_stats(self) -> None:
        """Draw the panel of figures, if it is shown."""
        panel = self.panel
        if panel.display:
            status, dialogue = self._status, self.dialogue
            spans = dialogue.spans
            panel.show(
                stats_view(status.stats, status.timings, dialogue.completions, spans, self._insight)
            )

    def toggle_stats(self) -> None:
        """Show or hide the panel of figures."""
        panel = self.panel
        panel.display = not panel.display
        self.refresh_stats()
        self._renew_insight()

    def _renew_insight(self) -> None:
        if self.panel.display and self.model is not None:
            self.run_worker(self._ask_insight(), group="insight", exclusive=True)

    async def _ask_insight(self) -> None:
        told = await asyncio.to_thread(self.worker.insight)
        if told is not None and self.model is not None:
            self._insight = insight_of(told, self.model)
            self.refresh_stats()
