"""The conversation on the screen: questions go in, an answer streams, versions are stepped through.

    send -> (waiting) -> begun: written down -> asked -> drawn as the pacer allows -> settled
                                                                      -> the message that waited

One answer at a time is under way here. All methods run on the event loop; what waits for the disk
runs in `Disk`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from edgespec.chats import MessageState
from edgespec.errors import StorageError
from edgespec.tui.disk import Disk
from edgespec.tui.entries import entry_of, progress_line
from edgespec.tui.failure import Failure
from edgespec.tui.live import LiveAnswer
from edgespec.tui.pacing import Pacer
from edgespec.tui.plain import plain
from edgespec.tui.remarks import context_remark, remarks, same_bytes_remark
from edgespec.tui.session import Asked, Session
from edgespec.tui.status import State
from edgespec.tui.transcript import Entry, Transcript
from edgespec.tui.worker import Job, Worker
from edgespec.types import Chunk, Completion, ServedModel, Span, figures_of

_SAID = ("question", "answer")

WAITING = "waiting"
"""Key of the entry of a message that waits for its turn."""


class Stage(Protocol):
    """What stands around a dialogue: the app."""

    @property
    def model(self) -> ServedModel | None:
        """The loaded model; None while there is none."""
        ...

    @property
    def is_occupied(self) -> bool:
        """Whether the model has something else to do than to answer, or is being changed."""
        ...

    def show_state(self, state: State, chunk: Chunk | None = None, detail: str = "") -> None:
        """Tell in the status line what happens."""
        ...

    def give_back(self, text: str, hint: str) -> None:
        """Put a message that came to nothing back into the box."""
        ...

    def hint(self, line: str) -> None:
        """Say something for a moment."""
        ...

    def later(self, seconds: float, work: Callable[[], object]) -> None:
        """Do `work` when so many seconds have passed."""
        ...


class Dialogue:
    """See the module's docstring."""

    def __init__(
        self, session: Session, transcript: Transcript, worker: Worker, disk: Disk, stage: Stage
    ) -> None:
        """`worker` is asked only while the stage has a model."""
        self.session = session
        self.live: LiveAnswer | None = None
        self.completions: list[Completion] = []
        self._transcript = transcript
        self._worker = worker
        self._disk = disk
        self._stage = stage
        self._pacer = Pacer()
        self._waiting: str | None = None
        self._is_beginning = self._is_unwanted = False
        self._is_draw_due = False
        self._num_notes = 0
        self._num_dropped = 0
        self._is_told_full = False

    @property
    def is_busy(self) -> bool:
        """Whether an answer is under way, or about to be, or the model does something else."""
        return self.live is not None or self._is_beginning or self._stage.is_occupied

    @property
    def waiting(self) -> str | None:
        """The message that waits for its turn, if one does."""
        return self._waiting

    @property
    def is_waiting(self) -> bool:
        """Whether a message waits for its turn."""
        return self._waiting is not None

    @property
    def spans(self) -> list[Span]:
        """Where the present or last answer came from."""
        last = self.session.last("assistant")
        sources = self.live.sources if self.live is not None else last.sources if last else ()
        return [Span(length, source) for length, source in sources]

    # Sending

    async def send(self, text: str) -> None:
        """Ask now, or let the message wait for the model, or for the answer under way."""
        if self._waiting is not None:
            self._stage.give_back(text, "one message is waiting already")
        elif self._stage.model is None or self.is_busy:
            self._waiting = text
            self._transcript.add(Entry(WAITING, "question", text, state="waiting"))
            self._transcript.jump_to_end()
            self._stage.hint("sent as soon as the model is free · Esc takes it back")
        else:
            await self.start(lambda: self.session.ask(text))

    async def send_waiting(self) -> None:
        """The model is free: ask what waits."""
        if self._waiting is not None and not self.is_busy:
            text, self._waiting = self._waiting, None
            self._transcript.remove(WAITING)
            await self.start(lambda: self.session.ask(text))

    def take_back_waiting(self) -> None:
        """Put the message that waits back into the box."""
        if self._waiting is not None:
            text, self._waiting = self._waiting, None
            self._transcript.remove(WAITING)
            self._stage.give_back(text, "")

    async def start(self, begin: Callable[[], Asked]) -> None:
        """Have something answered that `begin` writes down first."""
        if self._stage.model is None or self.is_busy:
            self._stage.hint("an answer is under way · Esc stops it" if self.is_busy else "loading")
            return
        self._is_beginning, self._is_unwanted = True, False
        try:
            asked = await self._disk.run(begin)
        except StorageError as error:
            self.error(str(error))
            return
        finally:
            self._is_beginning = False
        self._show_path()
        self._transcript.jump_to_end()
        self.live = LiveAnswer(self._worker.ask(asked.request), asked)
        self._pacer.begin()
        self._stage.show_state("prefilling")
        if self._is_unwanted:
            self.stop()

    def stop(self) -> None:
        """Stop the answer, and take back what waits."""
        self.take_back_waiting()
        self._is_unwanted = True
        if self.live is not None:
            self._stage.show_state("stopping")
            self.live.job.cancel()

    def leave(self) -> None:
        """Write down what there is of an open answer; nothing more is drawn."""
        live, self.live = self.live, None
        if live is not None:
            live.job.cancel()
            live.take()
            text, sources = live.text, tuple(live.sources)
            self._disk.start(
                lambda: self.session.finish(live.asked.answer, text, "cut", sources=sources)
            )

    def last_turn(self) -> str:
        """The last question and what there is of its answer, as Markdown; "" without one."""
        question, answer = self.session.last("user"), self.session.last("assistant")
        if question is None or answer is None:
            return ""
        asked = "\n".join(f"> {line}".rstrip() for line in question.content.splitlines())
        said = answer.content
        if self.live is not None:
            self._draw_text(self.live)
            said = self.live.text
        return plain(f"{asked}\n\n{said}".rstrip())

    # An answer on its way

    def progress(self, job: Job) -> None:
        """The job has something: draw it now or soon."""
        if self._is_live(job) and not self._is_draw_due:
            delay = self._pacer.delay()
            if delay:
                self._is_draw_due = True
                self._stage.later(delay, self.draw)
            else:
                self.draw()

    def draw(self) -> None:
        """Draw what came since the last time."""
        self._is_draw_due = False
        live = self.live
        if live is None:
            return
        self._pacer.redraw()
        chunk = self._draw_text(live)
        if chunk is not None and not live.job.is_cancelled:
            reading = chunk.progress is not None and not live.text
            detail = progress_line(chunk, live.started_at) if reading else ""
            self._stage.show_state("prefilling" if reading else "answering", chunk, detail)
        if live.is_to_be_kept():
            answer, text, sources = live.asked.answer, live.text, tuple(live.sources)
            self._disk.start(lambda: self.session.partial(answer, text, sources))

    async def answered(self, job: Job, completion: Completion) -> None:
        """The answer is over."""
        live = self.live
        if live is None or not self._is_live(job):
            return
        self._draw_text(live)
        self.live = None
        if live.text or completion.finish_reason != "cancelled":
            await self._settle(live, completion)
        else:
            await self._withdraw(live.asked, "stopped before the answer began")
        self._stage.show_state("ready")
        await self.send_waiting()

    async def failed(self, job: Job, failure: Failure) -> None:
        """Say what went wrong; what there is stays, and it can be asked again."""
        live = self.live
        if live is None or not self._is_live(job):
            return
        self._draw_text(live)
        self.live = None
        self.take_back_waiting()
        asked, text, sources = live.asked, live.text, tuple(live.sources)
        if text or failure.is_death:
            await self._disk.run(
                lambda: self.session.finish(asked.answer, text, "cut", sources=sources)
            )
        else:
            await self._withdraw(asked, "")
        self._show_path()
        self.error(f"{failure.line} · Ctrl+R asks again" if failure.is_death else failure.line)
        self._stage.show_state("ready")

    async def _withdraw(self, asked: Asked, hint: str) -> None:
        """Nothing came of it: a question without another answer goes back into the box."""
        question = self.session.messages[asked.question].content
        is_alone = len(self.session.versions(asked.answer)) == 1
        await self._disk.run(lambda: self.session.withdraw(asked))
        self._show_path()
        if is_alone:
            self._stage.give_back(question, hint)

    async def _settle(self, live: LiveAnswer, completion: Completion) -> None:
        """Keep and show the final text, figures and remarks."""
        text = live.asked.text + completion.text
        asked, sources = live.asked, tuple(live.sources if text == live.text else ())
        state: MessageState = "done" if completion.finish_reason == "stop" else "cut"
        model = self._stage.model
        figures = figures_of(completion, asked.request)
        await self._disk.run(
            lambda: self.session.finish(
                asked.answer, text, state, model.name if model else None, figures, sources
            )
        )
        self.completions.append(completion)
        self._stage.show_state("ready", Chunk("", (), completion.stats, completion.timings))
        self._transcript.update(self._entry(asked.answer))
        has_older = len(self.session.path) > 2
        lines = remarks(completion, self.session.max_tokens, self._num_dropped, has_older=has_older)
        self._num_dropped = completion.num_dropped_messages
        if not asked.request.speculate:
            lines += same_bytes_remark(self.session, asked.answer)
        if model is not None and not self._is_told_full:
            full = context_remark(completion, model.num_context)
            self._is_told_full = bool(full)
            lines += full
        for line in lines:
            self.note(line)

    # Showing

    async def show(self, change: Callable[[], object]) -> None:
        """Have the session show something else, between answers."""
        await self._disk.run(change)
        self.completions.clear()
        self._num_dropped, self._is_told_full = 0, False
        self._show_path()

    def refresh(self) -> None:
        """Draw the way to the tip anew."""
        self._show_path()

    def note(self, line: str) -> None:
        """A quiet remark below what is there."""
        self._add_line("note", line)

    def error(self, line: str) -> None:
        """A line about something that went wrong."""
        self._add_line("error", line)

    def _add_line(self, kind: str, line: str) -> None:
        self._num_notes += 1
        self._transcript.add(Entry(f"note-{self._num_notes}", kind, line))  # type: ignore[arg-type]

    def _show_path(self) -> None:
        entries = [self._entry(message.id) for message in self.session.path]
        if self._waiting is not None:
            entries.append(Entry(WAITING, "question", self._waiting, state="waiting"))
        if not self._extend(entries):
            self._transcript.show(entries)

    def _extend(self, entries: Sequence[Entry]) -> bool:
        """Add to what is there, with the notes in it; False if something else is to be shown."""
        shown = [entry for entry in self._transcript.entries if entry.kind in _SAID]
        if [entry.key for entry in shown] != [entry.key for entry in entries[: len(shown)]]:
            return False
        for before, entry in zip(shown, entries, strict=False):
            if before != entry:
                self._transcript.update(entry)
        for entry in entries[len(shown) :]:
            self._transcript.add(entry)
        return True

    def _entry(self, message: int) -> Entry:
        return entry_of(self.session.messages[message], self.session.versions(message))

    def _draw_text(self, live: LiveAnswer) -> Chunk | None:
        text, spans, chunk = live.take()
        if text:
            self._transcript.grow(live.key, text, spans)
        return chunk

    def _is_live(self, job: Job) -> bool:
        return self.live is not None and self.live.job is job
