"""Loads the completer and reads its answers, in threads of their own.

    app (event loop)                              threads
      start() ----------------------------------->  factory(report)
                    <---------- LoadProgress* , Loaded | LoadFailed ; Notice at any time
      ask(request) -> Job ----------------------->  iterates the answer
                    <---------- AnswerProgress*   :  "the job has something for you"
      job.take()    <---------- everything since the last take
      job.cancel()
                    <---------- Answered | AnswerFailed

The threads never touch a widget: they post messages, and hand text over in the job, which tells the
app once and stays silent until the app has taken it. A fast model thus costs the screen no more
than the app chooses to draw. They are daemon threads, not Textual workers: asyncio and the
interpreter wait for those, and a user who quits must not wait for a model to finish loading.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass

from textual.message import Message

from edgespec.errors import EdgeSpecError
from edgespec.protocols import Answer, Completer
from edgespec.reports import Report, is_progress
from edgespec.tui.failure import Failure, describe
from edgespec.types import Chunk, Completion, CompletionRequest, Insight, ServedModel, Span
from edgespec.types import Message as ChatMessage

CompleterFactory = Callable[[Report], Completer]
"""Builds the completer in a thread; what it is given takes one line at a time, later, too."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What a job brought since it was last asked; `latest` carries the newest counts and times."""

    text: str
    spans: tuple[Span, ...]
    latest: Chunk | None


class Job:
    """One answer on its way, shared between the app and the thread that reads it."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.is_cancelled = False
        self._lock = threading.Lock()
        self._texts: list[str] = []
        self._spans: list[Span] = []
        self._latest: Chunk | None = None
        self._announced = False

    def cancel(self) -> None:
        """Have the answer end at once, begun or not."""
        self.is_cancelled = True
        self.answer.cancel()

    def put(self, chunk: Chunk) -> bool:
        """Add a chunk; True if the app has to be told, False if it was told and has yet to come."""
        with self._lock:
            self._texts.append(chunk.text)
            self._spans += chunk.spans
            self._latest = chunk
            first, self._announced = not self._announced, True
            return first

    def take(self) -> Progress:
        """All that was put since the last `take`."""
        with self._lock:
            text, spans = "".join(self._texts), tuple(self._spans)
            self._texts.clear()
            self._spans.clear()
            self._announced = False
            return Progress(text, spans, self._latest)


class LoadProgress(Message):
    """The completer is being loaded; `line` says how far."""

    def __init__(self, line: str) -> None:
        super().__init__()
        self.line = line

    def can_replace(self, message: Message) -> bool:
        """Only the newest line matters."""
        return isinstance(message, LoadProgress)


class Notice(Message):
    """Something that the user should know and that changes nothing."""

    def __init__(self, line: str) -> None:
        super().__init__()
        self.line = line


class Loaded(Message):
    """The completer is ready."""

    def __init__(self, model: ServedModel) -> None:
        super().__init__()
        self.model = model


class LoadFailed(Message):
    """There is no completer, or still the one before."""

    def __init__(self, failure: Failure) -> None:
        super().__init__()
        self.failure = failure


class AnswerProgress(Message):
    """`job.take()` has something to show."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job = job


class Answered(Message):
    """The job is done."""

    def __init__(self, job: Job, completion: Completion) -> None:
        super().__init__()
        self.job = job
        self.completion = completion


class AnswerFailed(Message):
    """The job ended in an error; what it brought before can still be taken."""

    def __init__(self, job: Job, failure: Failure) -> None:
        super().__init__()
        self.job = job
        self.failure = failure


class Worker:
    """Loads a completer and reads its answers, away from the event loop."""

    def __init__(self, factory: CompleterFactory, post: Callable[[Message], object]) -> None:
        """`post` takes messages for the app and may be called from any thread."""
        self._factory = factory
        self._post_to_app = post
        self._completer: Completer | None = None
        self._jobs: set[Job] = set()
        self._is_closed = False

    def start(self) -> None:
        """Begin to load; `Loaded` or `LoadFailed` tells how it went."""
        threading.Thread(target=self._load, name="loading", daemon=True).start()

    def ask(self, request: CompletionRequest) -> Job:
        """Begin to answer; only after `Loaded`."""
        assert self._completer is not None, "asked before the model was loaded"
        job = Job(self._completer.answer(request))
        self._jobs.add(job)
        threading.Thread(target=self._read, args=(job,), name="answer", daemon=True).start()
        return job

    def load_again(self, factory: CompleterFactory) -> None:
        """Have another model serve; if that fails, the one before goes on."""
        self._factory = factory
        self.start()

    def count_tokens(self, text: str) -> int | None:
        """Tokens of a text; None before there is a model. Waits; raises EdgeSpecError."""
        completer = self._completer
        if completer is None:
            return None
        return completer.count_tokens((ChatMessage("user", text),))

    def insight(self) -> Insight | None:
        """What the engine knows of its speed; None where it cannot be asked. Waits."""
        with contextlib.suppress(EdgeSpecError):
            return self._completer.insight() if self._completer is not None else None
        return None

    def close(self) -> None:
        """Cancel all answers and post nothing more; does not wait."""
        self._is_closed = True
        for job in list(self._jobs):
            job.cancel()

    def _load(self) -> None:
        try:
            self._completer = self._factory(self._report)
            self._post(Loaded(self._completer.model))
        except Exception as error:  # noqa: BLE001 - a user sees a line, no traceback
            self._post(LoadFailed(describe(error)))

    def _report(self, line: str) -> None:
        self._post(LoadProgress(line) if is_progress(line) else Notice(line))

    def _read(self, job: Job) -> None:
        try:
            self._post(Answered(job, self._read_all(job)))
        except Exception as error:  # noqa: BLE001 - the chat outlives a failed answer
            self._post(AnswerFailed(job, describe(error)))
        self._jobs.discard(job)

    def _read_all(self, job: Job) -> Completion:
        completion: Completion | None = None
        for chunk in job.answer:
            completion = chunk.completion
            if job.put(chunk):
                self._post(AnswerProgress(job))
        if completion is None:
            raise RuntimeError("the answer ended without its completion")
        return completion

    def _post(self, message: Message) -> None:
        if not self._is_closed:
            # Where the event loop is closed, the user has left: nobody is there to be told.
            with contextlib.suppress(RuntimeError):
                self._post_to_app(message)
