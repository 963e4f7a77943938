"""The one thread that touches the completer: it loads it, then answers, one request at a time.

    app (event loop)                              completer thread
      start() ----------------------------------->  factory(report)
                    <---------- LoadProgress* , Loaded | LoadFailed ; Notice at any time
      ask(request) -> Job ----------------------->  stream(request)
                    <---------- AnswerProgress*   :  "the job has something for you"
      job.take()    <---------- everything since the last take
      stop(job) --------------------------------->  cancel()
                    <---------- Answered | AnswerFailed

The thread never touches a widget: it posts messages, and hands text over in the job, which tells
the app once and stays silent until the app has taken it. A fast model thus costs the screen no more
than the app chooses to draw. It is a daemon thread, not a Textual worker: asyncio and the
interpreter wait for those, and a user who quits must not wait for a model to finish loading.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

from textual.message import Message

from edgespec.protocols import Completer
from edgespec.reports import Report, is_progress
from edgespec.tui.failure import Failure, describe
from edgespec.types import Chunk, Completion, CompletionRequest, ServedModel

CompleterFactory = Callable[[Report], Completer]
"""Builds the completer in the completer thread; what it is given takes one line at a time.

It may be called later, too. While loading it raises `LoadAbandoned` once the user has quit.
"""


class LoadAbandoned(Exception):
    """Raised by the progress callback when the user has quit: let it through."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What a job brought since it was last asked; `latest` carries the newest counts and times."""

    text: str
    latest: Chunk | None


class Job:
    """One request on its way, shared between the two threads."""

    def __init__(self, request: CompletionRequest) -> None:
        self.request = request
        self.cancelled = threading.Event()
        self.ended = threading.Event()
        self._lock = threading.Lock()
        self._texts: list[str] = []
        self._latest: Chunk | None = None
        self._announced = False

    def put(self, chunk: Chunk) -> bool:
        """Add a chunk; True if the app has to be told, False if it was told and has yet to come."""
        with self._lock:
            self._texts.append(chunk.text)
            self._latest = chunk
            first, self._announced = not self._announced, True
            return first

    def take(self) -> Progress:
        """All that was put since the last `take`."""
        with self._lock:
            text = "".join(self._texts)
            self._texts.clear()
            self._announced = False
            return Progress(text, self._latest)


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
    """There will be no completer."""

    def __init__(self, failure: Failure) -> None:
        super().__init__()
        self.failure = failure


class AnswerProgress(Message):
    """`job.take()` has something to show."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job = job


class Answered(Message):
    """The job is done; `completion` is None if it was cancelled before it began."""

    def __init__(self, job: Job, completion: Completion | None) -> None:
        super().__init__()
        self.job = job
        self.completion = completion


class AnswerFailed(Message):
    """The job ended in an error; what it brought before can still be taken."""

    def __init__(self, job: Job, failure: Failure) -> None:
        super().__init__()
        self.job = job
        self.failure = failure


class CompleterThread:
    """Loads a completer and lets it answer, away from the event loop."""

    def __init__(self, factory: CompleterFactory, post: Callable[[Message], object]) -> None:
        """`post` takes messages for the app and may be called from any thread."""
        self._factory = factory
        self._post_to_app = post
        self._completer: Completer | None = None
        self._current: Job | None = None
        self._current_lock = threading.Lock()
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="completer", daemon=True)

    @property
    def running(self) -> bool:
        """True from `start` until the thread has ended."""
        return self._thread.is_alive()

    @property
    def loading(self) -> bool:
        """True while the factory has been called and has not returned."""
        return self.running and self._completer is None

    def start(self) -> None:
        """Begin to load."""
        self._thread.start()

    def ask(self, request: CompletionRequest) -> Job:
        """Queue a request; it starts when those before it have ended."""
        job = Job(request)
        self._jobs.put(job)
        return job

    def stop(self, job: Job) -> bool:
        """Have `job` end at once, begun or not; False once it has ended.

        A cancel that comes in the instant before the completer begins meets no answer to cancel:
        repeat this until it returns False. It never meets another job than `job`.
        """
        job.cancelled.set()
        with self._current_lock:
            if self._current is job and self._completer is not None:
                self._completer.cancel()
        return not job.ended.is_set()

    def close(self) -> None:
        """Have the thread end as soon as it can; does not wait, and may be repeated like `stop`."""
        self._closing.set()
        self._jobs.put(None)
        job = self._current
        if job is not None:
            self.stop(job)

    def _run(self) -> None:
        completer = self._load()
        if completer is None:
            return
        self._completer = completer
        while (job := self._jobs.get()) is not None and not self._closing.is_set():
            self._answer(completer, job)

    def _load(self) -> Completer | None:
        try:
            completer = self._factory(self._report)
            self._post(Loaded(completer.model))
            return completer
        except LoadAbandoned:
            return None
        except Exception as error:  # noqa: BLE001 - a user sees a line, no traceback
            self._post(LoadFailed(describe(error)))
            return None

    def _report(self, line: str) -> None:
        if self._closing.is_set() and self._completer is None:
            raise LoadAbandoned
        self._post(LoadProgress(line) if is_progress(line) else Notice(line))

    def _answer(self, completer: Completer, job: Job) -> None:
        with self._current_lock:
            self._current = job
        try:
            result = self._stream(completer, job)
        except Exception as error:  # noqa: BLE001 - the chat outlives a failed answer
            result = AnswerFailed(job, describe(error))
        with self._current_lock:
            self._current = None
        job.ended.set()
        self._post(result)

    def _stream(self, completer: Completer, job: Job) -> Answered | AnswerFailed:
        if job.cancelled.is_set():
            return Answered(job, None)
        completion: Completion | None = None
        for chunk in completer.stream(job.request):
            completion = chunk.completion or completion
            if job.put(chunk):
                self._post(AnswerProgress(job))
        if completion is None:
            raise RuntimeError("the answer ended without its completion")
        return Answered(job, completion)

    def _post(self, message: Message) -> None:
        try:
            self._post_to_app(message)
        except RuntimeError:
            # The event loop is closed: the user has left, nobody is there to be told.
            self._closing.set()
