"""Work while nobody waits: begun after a load and each answer, stopped before the next request."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from edgespec.errors import BusyError, StorageError
from edgespec.pauses import Pause
from edgespec.protocols import Observation
from edgespec.runtime.idle import IdleTask, IdleWorker, LateTask
from edgespec.types import Completion, CompletionRequest, EncodedPrompt, SpeculationStats, Timings

PATIENCE_S = 30.0
COMPLETION = Completion("", (1,), "stop", Timings(0, 0, 0, 1, 0, 1), SpeculationStats())


@dataclass
class Task:
    work: Callable[[Pause], bool | None]
    name: str = "the sheep are counted"

    def run(self, pause: Pause) -> bool:
        return bool(self.work(pause))


@dataclass
class Flag:
    """Stands for a context: a pass that never ends by itself."""

    aborted: threading.Event = field(default_factory=threading.Event)

    def abort(self) -> None:
        self.aborted.set()

    def resume(self) -> None:
        self.aborted.clear()


def worker(*work: Callable[[Pause], bool | None], lines: list[str] | None = None) -> IdleWorker:
    tasks: list[IdleTask] = [Task(each) for each in work]
    return IdleWorker((lines if lines is not None else []).append, tasks)


def begin(worker: IdleWorker) -> Observation:
    return worker.open(CompletionRequest("a"), EncodedPrompt((1,)))


def answer(worker: IdleWorker) -> None:
    begin(worker).close(COMPLETION)


def test_it_works_after_a_load_and_after_each_answer() -> None:
    done: list[str] = []
    with worker(lambda _pause: done.append("work")) as idle:
        assert idle.wait(PATIENCE_S)
        assert done == []
        idle.start()
        assert idle.wait(PATIENCE_S)
        for count in range(1, 4):
            answering = begin(idle)
            assert len(done) == count
            answering.close(COMPLETION)
            assert idle.wait(PATIENCE_S)
            assert len(done) == count + 1


def test_requests_that_follow_at_once_meet_no_work() -> None:
    done: list[str] = []
    with worker(lambda _pause: done.append("work")) as idle:
        idle.start()
        for _ in range(3):
            answer(idle)
        assert done == []
        assert idle.wait(PATIENCE_S)
    assert done == ["work"]


def test_one_task_at_a_time_to_its_end_in_their_order() -> None:
    done: list[str] = []

    def first(_pause: Pause) -> bool:
        done.append("first")
        return len(done) < 3

    with worker(first, lambda _pause: done.append("second")) as idle:
        answer(idle)
        assert idle.wait(PATIENCE_S)
        assert done == ["first", "first", "first", "second"]


def test_a_request_ends_the_work_and_it_is_begun_again() -> None:
    events: list[str] = []
    is_working = threading.Event()

    def work(pause: Pause) -> None:
        if "answer" not in events:
            is_working.set()
            while True:
                pause()
        pause()
        events.append("done")

    with worker(work) as idle:
        answer(idle)
        assert is_working.wait(PATIENCE_S)
        answering = begin(idle)
        events.append("answer")
        answering.close(COMPLETION)
        assert idle.wait(PATIENCE_S)
    assert events == ["answer", "done"]


def test_a_request_ends_the_pass_under_way() -> None:
    flag, is_computing = Flag(), threading.Event()
    events: list[str] = []

    def work(pause: Pause) -> None:
        with pause.aborting(flag):
            is_computing.set()
            assert flag.aborted.wait(PATIENCE_S) or not events
            pause()
        events.append("done")

    with worker(work) as idle:
        answer(idle)
        assert is_computing.wait(PATIENCE_S)
        answering = begin(idle)
        assert not flag.aborted.is_set(), "it is taken back for the next pass"
        assert events == []
        flag.abort()  # what goes on is not to wait
        answering.close(COMPLETION)
        assert idle.wait(PATIENCE_S)
    assert events == ["done"]


def test_a_request_waits_for_what_cannot_be_ended() -> None:
    events: list[str] = []
    is_working, go_on = threading.Event(), threading.Event()

    def work(_pause: Pause) -> None:
        is_working.set()
        assert go_on.wait(PATIENCE_S)
        events.append("exchanged")

    with worker(work) as idle:
        answer(idle)
        assert is_working.wait(PATIENCE_S)
        timer = threading.Timer(0.05, go_on.set)
        timer.start()
        begin(idle)
        assert events == ["exchanged"]
        timer.join()


@pytest.mark.parametrize("error", [StorageError("the disk is full"), OSError("x"), MemoryError()])
def test_a_failure_is_told_once_and_the_other_tasks_go_on(error: Exception) -> None:
    calls: list[str] = []
    lines: list[str] = []

    def work(_pause: Pause) -> None:
        calls.append("failing")
        raise error

    with worker(work, lambda _pause: calls.append("other"), lines=lines) as idle:
        for _ in range(3):
            answer(idle)
            assert idle.wait(PATIENCE_S)
    assert calls == ["failing", "other", "other", "other"]
    assert lines == [f"the sheep are counted no more in this run: {error}"]


@pytest.mark.parametrize(
    "error", [BusyError("somebody else is at it", "wait"), sqlite3.OperationalError("locked")]
)
def test_what_others_are_at_is_tried_again(error: Exception) -> None:
    calls: list[int] = []
    lines: list[str] = []

    def work(_pause: Pause) -> None:
        calls.append(1)
        raise error

    with worker(work, lines=lines) as idle:
        for _ in range(3):
            answer(idle)
            assert idle.wait(PATIENCE_S)
    assert calls == [1, 1, 1]
    assert lines == []


def test_a_task_without_a_reason_yet_is_looked_for_after_each_answer() -> None:
    found: list[IdleTask] = []
    done: list[str] = []
    late = LateTask("late ones are done", lambda: found[0] if found else None)
    with IdleWorker(lambda _line: None, [late]) as idle:
        idle.start()
        assert idle.wait(PATIENCE_S) and not done
        found.append(Task(lambda _pause: done.append("work")))
        answer(idle)
        assert idle.wait(PATIENCE_S) and done == ["work"]


def test_closing_ends_the_work() -> None:
    is_working = threading.Event()

    def work(pause: Pause) -> None:
        is_working.set()
        while True:
            pause()

    idle = worker(work)
    answer(idle)
    assert is_working.wait(PATIENCE_S)
    idle.close()
    idle.close()
    answer(idle)  # too late, and nothing happens
    assert idle.wait(PATIENCE_S)


def test_one_that_never_worked_closes() -> None:
    with worker(lambda _pause: None):
        pass
    with worker() as idle:
        idle.start()
        answer(idle)
        assert idle.wait(PATIENCE_S)
