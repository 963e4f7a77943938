"""Work between answers: begun after each, stopped before the next, given up when it fails."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from edgespec.errors import BusyError, StorageError
from edgespec.runtime.idle import BetweenAnswers, Pause
from edgespec.types import CompletionRequest, EncodedPrompt

PATIENCE_S = 30.0


@dataclass
class Rig:
    """Something done between answers, and what was reported."""

    lines: list[str] = field(default_factory=list)

    def doing(self, work: Callable[[Pause], None]) -> BetweenAnswers:
        return BetweenAnswers(work, "the sheep are counted", self.lines.append)


def begin(worker: BetweenAnswers) -> BetweenAnswers:
    return worker.open(CompletionRequest("a"), EncodedPrompt((1,)))


def answer(worker: BetweenAnswers) -> None:
    begin(worker).close(None)


def test_it_works_after_each_answer() -> None:
    done: list[str] = []
    with Rig().doing(lambda _pause: done.append("work")) as worker:
        assert worker.wait(PATIENCE_S)
        assert done == []
        for count in range(1, 4):
            observation = begin(worker)
            assert len(done) == count - 1
            observation.close(None)
            assert worker.wait(PATIENCE_S)
            assert len(done) == count


def test_nothing_is_done_while_another_answer_is_open() -> None:
    done: list[str] = []
    with Rig().doing(lambda _pause: done.append("work")) as worker:
        first, second = begin(worker), begin(worker)
        first.close(None)
        assert not worker.wait(0.05)
        assert done == []
        second.close(None)
        assert worker.wait(PATIENCE_S)
    assert done == ["work"]


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

    with Rig().doing(work) as worker:
        answer(worker)
        assert is_working.wait(PATIENCE_S)
        observation = begin(worker)
        events.append("answer")
        observation.close(None)
        assert worker.wait(PATIENCE_S)
    assert events == ["answer", "done"]


def test_a_request_waits_for_what_cannot_be_ended() -> None:
    events: list[str] = []
    is_working, go_on = threading.Event(), threading.Event()

    def work(_pause: Pause) -> None:
        is_working.set()
        assert go_on.wait(PATIENCE_S)
        events.append("exchanged")

    with Rig().doing(work) as worker:
        answer(worker)
        assert is_working.wait(PATIENCE_S)
        timer = threading.Timer(0.05, go_on.set)
        timer.start()
        begin(worker)
        assert events == ["exchanged"]
        timer.join()


@pytest.mark.parametrize("error", [StorageError("the disk is full"), OSError("x"), MemoryError()])
def test_a_failure_is_told_once_and_is_the_end(error: Exception) -> None:
    calls: list[int] = []

    def work(_pause: Pause) -> None:
        calls.append(1)
        raise error

    rig = Rig()
    with rig.doing(work) as worker:
        for _ in range(3):
            answer(worker)
            assert worker.wait(PATIENCE_S)
    assert calls == [1]
    assert rig.lines == [f"the sheep are counted no more in this run: {error}"]


@pytest.mark.parametrize(
    "error", [BusyError("somebody else is at it", "wait"), sqlite3.OperationalError("locked")]
)
def test_what_others_are_at_is_tried_again(error: Exception) -> None:
    calls: list[int] = []

    def work(_pause: Pause) -> None:
        calls.append(1)
        raise error

    rig = Rig()
    with rig.doing(work) as worker:
        for _ in range(3):
            answer(worker)
            assert worker.wait(PATIENCE_S)
    assert calls == [1, 1, 1]
    assert rig.lines == []


def test_stopping_ends_the_work() -> None:
    is_working = threading.Event()

    def work(pause: Pause) -> None:
        is_working.set()
        while True:
            pause()

    worker = Rig().doing(work)
    answer(worker)
    assert is_working.wait(PATIENCE_S)
    worker.stop()
    worker.stop()
    answer(worker)  # too late, and nothing happens
    assert worker.wait(PATIENCE_S)


def test_one_that_never_worked_closes() -> None:
    with Rig().doing(lambda _pause: None):
        pass
