"""The worker by itself, without an app: messages out, jobs in."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from typing import TypeVar

import pytest
from answer_support import GeneratedAnswer
from textual.message import Message
from tui_support import MODEL, GatedFactory, ScriptedCompleter

from edgespec.errors import HostDied, ModelFileError
from edgespec.protocols import Completer
from edgespec.reports import Report
from edgespec.tui.failure import Failure
from edgespec.tui.worker import (
    Answered,
    AnswerFailed,
    AnswerProgress,
    Job,
    Loaded,
    LoadFailed,
    LoadProgress,
    Notice,
    Worker,
)
from edgespec.types import Chunk, CompletionRequest
from edgespec.types import Message as ChatMessage

REQUEST = CompletionRequest(prompt=(ChatMessage("user", "Hi"),))
Found = TypeVar("Found", bound=Message)


class Posted:
    """Stands where the app would be: keeps messages in the order they came."""

    def __init__(self) -> None:
        self._messages: queue.Queue[Message] = queue.Queue()

    def __call__(self, message: Message) -> None:
        self._messages.put(message)

    def next(self, kind: type[Found]) -> Found:
        """The next message of that kind; those before it are dropped."""
        while True:
            message = self._messages.get(timeout=5)
            if isinstance(message, kind):
                return message

    def all_kinds(self) -> list[type[Message]]:
        return [type(self._messages.get_nowait()) for _ in range(self._messages.qsize())]


@pytest.fixture
def posted() -> Posted:
    return Posted()


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    for thread in threading.enumerate():
        if thread.name in ("loading", "answer"):
            thread.join(5)
            assert not thread.is_alive()


def start(completer: Completer, posted: Posted) -> Worker:
    worker = Worker(lambda report: completer, posted)
    worker.start()
    assert posted.next(Loaded).model == MODEL
    return worker


def test_loading_reports_and_then_gives_the_model(posted: Posted) -> None:
    factory = GatedFactory(ScriptedCompleter("one"))
    Worker(factory, posted).start()
    assert posted.next(LoadProgress).line == "opening qwen.gguf"
    factory.opened.set()
    assert posted.next(Loaded).model == MODEL


def test_a_newer_progress_line_replaces_one_not_yet_shown() -> None:
    assert LoadProgress("1 %").can_replace(LoadProgress("2 %"))
    assert not LoadProgress("1 %").can_replace(Loaded(MODEL))


def test_what_is_no_progress_is_a_notice_and_is_never_replaced(posted: Posted) -> None:
    reports: list[Report] = []

    def factory(report: Report) -> Completer:
        reports.append(report)
        report("the library is slow")
        return ScriptedCompleter("one")

    worker = Worker(factory, posted)
    worker.start()
    assert posted.next(Notice).line == "the library is slow"
    posted.next(Loaded)
    assert not Notice("a").can_replace(Notice("b"))
    reports[0]("the database is damaged")
    assert posted.next(Notice).line == "the database is damaged"


def test_a_load_error_is_told(posted: Posted) -> None:
    factory = GatedFactory(error=ModelFileError("bad", "pull again"))
    factory.opened.set()
    Worker(factory, posted).start()
    failure = posted.next(LoadFailed).failure
    assert (failure.line, failure.exit_code) == ("bad; pull again", 3)


def test_once_closed_it_posts_nothing_more(posted: Posted) -> None:
    factory = GatedFactory(ScriptedCompleter("one"))
    worker = Worker(factory, posted)
    worker.start()
    assert factory.entered.wait(5)
    worker.close()
    factory.opened.set()
    while any(thread.name == "loading" for thread in threading.enumerate()):
        time.sleep(0.001)
    assert set(posted.all_kinds()) <= {LoadProgress}


def test_a_job_announces_once_until_it_is_taken() -> None:
    job = Job(ScriptedCompleter("one").answer(REQUEST))
    assert job.put(Chunk("a"))
    assert not job.put(Chunk("b"))
    progress = job.take()
    assert progress.text == "ab"
    assert progress.latest is not None and progress.latest.text == "b"
    assert job.put(Chunk("c"))
    assert job.take().text == "c"
    assert job.take().text == ""


def test_nothing_is_lost_between_two_threads() -> None:
    job, num_announced = Job(ScriptedCompleter("one").answer(REQUEST)), 0
    letters = [chr(97 + number % 26) for number in range(20_000)]
    taken: list[str] = []
    ended = threading.Event()

    def put_all() -> None:
        nonlocal num_announced
        for letter in letters:
            num_announced += job.put(Chunk(letter))
        ended.set()

    writer = threading.Thread(target=put_all)
    writer.start()
    while not ended.is_set():
        taken.append(job.take().text)
    writer.join(5)
    taken.append(job.take().text)
    assert "".join(taken) == "".join(letters)
    assert num_announced <= len(taken) + 1


def test_an_answer_is_announced_and_completed(posted: Posted) -> None:
    worker = start(ScriptedCompleter("one two"), posted)
    job = worker.ask(REQUEST)
    assert posted.next(AnswerProgress).job is job
    answered = posted.next(Answered)
    assert answered.job is job
    assert answered.completion.text == "one two"
    assert job.take().text == "one two"


def test_several_answers_may_be_open(posted: Posted) -> None:
    worker = start(ScriptedCompleter("one", "two", "three"), posted)
    jobs = {worker.ask(REQUEST): text for text in ("one", "two", "three")}
    for _ in range(3):
        answered = posted.next(Answered)
        assert answered.completion.text == jobs.pop(answered.job)


def test_after_a_failed_answer_the_next_one_comes(posted: Posted) -> None:
    worker = start(ScriptedCompleter(OSError("gone"), HostDied("it crashed"), "two"), posted)
    worker.ask(REQUEST)
    failure = posted.next(AnswerFailed).failure
    assert "OSError: gone" in failure.line and not failure.is_death
    worker.ask(REQUEST)
    assert posted.next(AnswerFailed).failure == Failure("it crashed", 6, is_death=True)
    worker.ask(REQUEST)
    assert posted.next(Answered).completion.text == "two"


def test_an_answer_without_its_completion_is_a_failure(posted: Posted) -> None:
    class Ending(ScriptedCompleter):
        def answer(self, request: CompletionRequest) -> GeneratedAnswer:
            return GeneratedAnswer(lambda _cancelled: iter([Chunk("one")]))

    job = start(Ending(), posted).ask(REQUEST)
    assert "without its completion" in posted.next(AnswerFailed).failure.line
    assert job.take().text == "one"


def test_a_cancel_meets_its_own_answer_only(posted: Posted) -> None:
    completer = ScriptedCompleter("one", "two", gated=True)
    worker = start(completer, posted)
    first, second = worker.ask(REQUEST), worker.ask(REQUEST)
    second.cancel()
    assert second.is_cancelled and not first.is_cancelled
    completer.allow(2)
    reasons = {}
    for _ in range(2):
        answered = posted.next(Answered)
        reasons[answered.job] = answered.completion.finish_reason
    assert reasons == {first: "stop", second: "cancelled"}
    first.cancel()  # it is over


def test_closing_cancels_what_runs(posted: Posted) -> None:
    completer = ScriptedCompleter("one two", gated=True)
    worker = start(completer, posted)
    worker.ask(REQUEST)
    worker.close()
    while completer.cancelled_at is None:
        time.sleep(0.001)


def test_a_closed_event_loop_is_no_failure() -> None:
    def closed(message: Message) -> None:
        raise RuntimeError("Event loop is closed")

    Worker(lambda report: ScriptedCompleter("one"), closed).start()
