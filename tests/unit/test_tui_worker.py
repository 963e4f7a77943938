"""The completer thread by itself, without an app: messages out, jobs in."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from typing import TypeVar

import pytest
from textual.message import Message
from tui_support import MODEL, GatedFactory, ScriptedCompleter

from edgespec.errors import ModelFileError
from edgespec.protocols import Completer
from edgespec.reports import Report
from edgespec.tui.worker import (
    Answered,
    AnswerFailed,
    AnswerProgress,
    CompleterThread,
    Job,
    LoadAbandoned,
    Loaded,
    LoadFailed,
    LoadProgress,
    Notice,
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


def begun(completer: ScriptedCompleter, num_requests: int) -> None:
    """Wait until the completer was asked that often."""
    deadline = time.monotonic() + 5
    while len(completer.requests) < num_requests:
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture
def posted() -> Posted:
    return Posted()


@pytest.fixture
def threads() -> Iterator[list[CompleterThread]]:
    started: list[CompleterThread] = []
    yield started
    for thread in started:
        thread.close()
        thread._thread.join(5)
        assert not thread.running


def start(
    completer: ScriptedCompleter, posted: Posted, threads: list[CompleterThread]
) -> CompleterThread:
    thread = CompleterThread(lambda report: completer, posted)
    thread.start()
    threads.append(thread)
    assert posted.next(Loaded).model == MODEL
    return thread


def test_loading_reports_and_then_gives_the_model(posted: Posted) -> None:
    factory = GatedFactory(ScriptedCompleter("one"))
    thread = CompleterThread(factory, posted)
    thread.start()
    assert posted.next(LoadProgress).line == "opening qwen.gguf"
    assert thread.loading
    factory.opened.set()
    assert posted.next(Loaded).model == MODEL
    thread.close()
    thread._thread.join(5)
    assert not thread.running and not thread.loading


def test_a_newer_progress_line_replaces_one_not_yet_shown() -> None:
    assert LoadProgress("1 %").can_replace(LoadProgress("2 %"))
    assert not LoadProgress("1 %").can_replace(Loaded(MODEL))


def test_what_is_no_progress_is_a_notice_and_is_never_replaced(posted: Posted) -> None:
    reports: list[Report] = []

    def factory(report: Report) -> Completer:
        reports.append(report)
        report("the library is slow")
        return ScriptedCompleter("one")

    thread = CompleterThread(factory, posted)
    thread.start()
    assert posted.next(Notice).line == "the library is slow"
    posted.next(Loaded)
    assert not Notice("a").can_replace(Notice("b"))
    thread.close()
    thread._thread.join(5)
    reports[0]("the database is damaged")
    assert posted.next(Notice).line == "the database is damaged", "leaving, but no load to abandon"


def test_a_load_error_ends_the_thread(posted: Posted) -> None:
    thread = CompleterThread(GatedFactory(error=ModelFileError("bad", "pull again")), posted)
    thread._factory.opened.set()  # type: ignore[attr-defined]
    thread.start()
    failure = posted.next(LoadFailed).failure
    assert (failure.line, failure.exit_code) == ("bad; pull again", 3)
    thread._thread.join(5)
    assert not thread.running


def test_an_abandoned_load_is_told_so_and_posts_nothing_more(posted: Posted) -> None:
    factory = GatedFactory(ScriptedCompleter("one"))
    thread = CompleterThread(factory, posted)
    thread.start()
    assert factory.entered.wait(5)
    thread.close()
    thread._thread.join(5)
    assert isinstance(factory.left_by, LoadAbandoned)
    assert set(posted.all_kinds()) <= {LoadProgress}


def test_a_job_announces_once_until_it_is_taken() -> None:
    job = Job(REQUEST)
    assert job.put(Chunk("a"))
    assert not job.put(Chunk("b"))
    progress = job.take()
    assert progress.text == "ab"
    assert progress.latest is not None and progress.latest.text == "b"
    assert job.put(Chunk("c"))
    assert job.take().text == "c"
    assert job.take().text == ""


def test_nothing_is_lost_between_two_threads() -> None:
    job, num_announced = Job(REQUEST), 0
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


def test_an_answer_is_announced_and_completed(
    posted: Posted, threads: list[CompleterThread]
) -> None:
    thread = start(ScriptedCompleter("one two"), posted, threads)
    job = thread.ask(REQUEST)
    assert posted.next(AnswerProgress).job is job
    answered = posted.next(Answered)
    assert answered.job is job
    assert answered.completion is not None and answered.completion.text == "one two"
    assert job.take().text == "one two"
    assert job.ended.is_set()


def test_requests_are_answered_one_after_another(
    posted: Posted, threads: list[CompleterThread]
) -> None:
    thread = start(ScriptedCompleter("one", "two", "three"), posted, threads)
    jobs = [thread.ask(REQUEST) for _ in range(3)]
    texts = []
    for job in jobs:
        answered = posted.next(Answered)
        assert answered.job is job and answered.completion is not None
        texts.append(answered.completion.text)
    assert texts == ["one", "two", "three"]


def test_a_failed_answer_does_not_end_the_thread(
    posted: Posted, threads: list[CompleterThread]
) -> None:
    thread = start(ScriptedCompleter(OSError("gone"), "two"), posted, threads)
    thread.ask(REQUEST)
    assert "OSError: gone" in posted.next(AnswerFailed).failure.line
    thread.ask(REQUEST)
    assert posted.next(Answered).completion is not None


def test_an_answer_without_its_completion_is_a_failure(
    posted: Posted, threads: list[CompleterThread]
) -> None:
    completer = ScriptedCompleter("one")
    completer.stream = lambda request: iter([Chunk("one")])  # type: ignore[method-assign]
    thread = start(completer, posted, threads)
    job = thread.ask(REQUEST)
    assert "without its completion" in posted.next(AnswerFailed).failure.line
    assert job.take().text == "one"


def test_a_job_stopped_while_it_waits_is_never_begun(
    posted: Posted, threads: list[CompleterThread]
) -> None:
    completer = ScriptedCompleter("one", gated=True)
    thread = start(completer, posted, threads)
    running, waiting = thread.ask(REQUEST), thread.ask(REQUEST)
    begun(completer, 1)
    assert thread.stop(waiting)
    assert not running.cancelled.is_set()
    completer.allow(1)
    assert posted.next(Answered).job is running
    answered = posted.next(Answered)
    assert answered.job is waiting and answered.completion is None
    assert len(completer.requests) == 1


def test_stopping_an_ended_job_does_not_touch_the_next(
    posted: Posted, threads: list[CompleterThread]
) -> None:
    completer = ScriptedCompleter("one", "two", gated=True)
    thread = start(completer, posted, threads)
    first = thread.ask(REQUEST)
    completer.allow(1)
    posted.next(Answered)
    thread.ask(REQUEST)
    begun(completer, 2)
    assert not thread.stop(first)
    completer.allow(1)
    completion = posted.next(Answered).completion
    assert completion is not None and completion.finish_reason == "stop"


def test_closing_stops_the_running_job_and_drops_the_waiting_ones(
    posted: Posted, threads: list[CompleterThread]
) -> None:
    completer = ScriptedCompleter("one two", gated=True)
    thread = start(completer, posted, threads)
    thread.ask(REQUEST)
    thread.ask(REQUEST)
    begun(completer, 1)
    thread.close()
    thread._thread.join(5)
    assert not thread.running
    assert completer.cancelled_at is not None
    assert len(completer.requests) == 1


def test_a_closed_event_loop_ends_the_thread_quietly() -> None:
    def closed(message: Message) -> None:
        raise RuntimeError("Event loop is closed")

    thread = CompleterThread(lambda report: ScriptedCompleter("one"), closed)
    thread.start()
    thread.ask(REQUEST)
    thread._thread.join(5)
    assert not thread.running
