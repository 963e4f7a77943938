"""The queue and its worker thread, without HTTP."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable

import pytest
from server_support import EchoCompleter

from edgespec.errors import BusyError, ContextOverflowError, EdgeSpecError, HostDied
from edgespec.server.answers import AnswerQueue, Queued
from edgespec.server.errors import ApiError
from edgespec.types import Chunk, CompletionRequest, PrefillProgress

LONG = CompletionRequest("x" * 2000)
NOW = [0.0]
"""What the clock of queues says."""

MakeQueue = Callable[..., AnswerQueue]


@pytest.fixture
async def make_queue() -> AsyncIterator[MakeQueue]:
    made: list[AnswerQueue] = []

    def make(completer: EchoCompleter, max_waiting: int, slots: int = 1) -> AnswerQueue:
        queue = AnswerQueue(completer, max_waiting, slots, clock=lambda: NOW[0])
        queue.start()
        made.append(queue)
        return queue

    yield make
    for queue in made:
        queue.stop()
        assert await asyncio.to_thread(queue.join, 5.0)


async def text_of(answer: Queued) -> str:
    return "".join([chunk.text async for chunk in answer.chunks()])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.002)


async def test_answers_come_in_the_order_of_the_questions(make_queue: MakeQueue) -> None:
    completer = EchoCompleter(token_s=0.001)
    queue = make_queue(completer, 9)
    requests = [CompletionRequest(f"question {number}") for number in range(10)]
    answers = [queue.submit(request) for request in requests]
    texts = await asyncio.gather(*map(text_of, answers))
    assert list(texts) == [request.prompt for request in requests]
    assert completer.requests == requests
    assert completer.most_open == 1
    assert threading.get_ident() not in completer.threads
    assert len(completer.threads) == 1
    await until(lambda: not queue.is_busy)


async def test_as_many_run_as_there_are_slots(make_queue: MakeQueue) -> None:
    completer = EchoCompleter(prefill_s=30.0)
    queue = make_queue(completer, 2, slots=3)
    answers = [queue.submit(LONG) for _ in range(5)]
    await until(lambda: completer.num_open == 3)
    assert (queue.num_running, queue.num_waiting) == (3, 2)
    with pytest.raises(BusyError):
        queue.submit(LONG)
    queue.abandon(answers[1])
    await until(lambda: len(completer.requests) == 4)
    completer.prefill_s = 0.0
    for answer in answers:
        queue.abandon(answer)
    assert await text_of(queue.submit(CompletionRequest("next"))) == "next"
    assert completer.most_open == 3


async def test_the_queue_is_bounded(make_queue: MakeQueue) -> None:
    completer = EchoCompleter(token_s=0.01)
    queue = make_queue(completer, 2)
    running, *waiting = [queue.submit(LONG) for _ in range(3)]
    with pytest.raises(BusyError, match="all 2 places"):
        queue.submit(LONG)
    await until(lambda: queue.is_answering)
    assert queue.num_waiting == 2
    with pytest.raises(BusyError):
        queue.submit(LONG)
    queue.abandon(waiting[0])
    assert queue.num_waiting == 1
    queue.submit(LONG)
    with pytest.raises(BusyError):
        queue.submit(LONG)
    queue.abandon(running)
    await until(lambda: len(completer.requests) == 2)


async def test_without_places_to_wait_one_answer_still_runs(make_queue: MakeQueue) -> None:
    queue = make_queue(EchoCompleter(), 0)
    assert await text_of(queue.submit(CompletionRequest("a"))) == "a"
    queue.submit(LONG)
    with pytest.raises(BusyError):
        queue.submit(LONG)


async def test_an_abandoned_place_is_never_answered(make_queue: MakeQueue) -> None:
    completer = EchoCompleter(token_s=0.002)
    queue = make_queue(completer, 5)
    first = queue.submit(CompletionRequest("first"))
    second = queue.submit(CompletionRequest("second"))
    third = queue.submit(CompletionRequest("third"))
    queue.abandon(second, ApiError(499, "left"))
    with pytest.raises(ApiError, match="left"):
        await text_of(second)
    assert [await text_of(first), await text_of(third)] == ["first", "third"]
    assert [request.prompt for request in completer.requests] == ["first", "third"]
    assert not completer.stopped


async def test_a_cancel_in_prefill_ends_it_and_spares_the_next(make_queue: MakeQueue) -> None:
    completer = EchoCompleter(prefill_s=30.0)
    queue = make_queue(completer, 5)
    running = queue.submit(LONG)
    await until(lambda: bool(completer.requests))
    completer.prefill_s = 0.05
    following = queue.submit(CompletionRequest("next"))
    started = time.monotonic()
    queue.abandon(running)
    assert await text_of(following) == "next"
    assert time.monotonic() - started < 1.0


async def test_an_answer_that_is_over_is_left_alone(make_queue: MakeQueue) -> None:
    completer = EchoCompleter(token_s=0.005)
    queue = make_queue(completer, 5)
    first = queue.submit(CompletionRequest("a"))
    assert await text_of(first) == "a"
    second = queue.submit(CompletionRequest("b" * 20))
    await until(lambda: len(completer.requests) == 2)
    queue.abandon(first)
    assert await text_of(second) == "b" * 20


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (ContextOverflowError("too long"), ContextOverflowError),
        (EdgeSpecError("broken"), EdgeSpecError),
        (HostDied("the engine died"), HostDied),
        (ZeroDivisionError("oops"), ApiError),
    ],
)
async def test_what_the_completer_raises_reaches_the_listener(
    make_queue: MakeQueue, raised: Exception, told: type[Exception]
) -> None:
    completer = EchoCompleter(fail_after=raised)
    queue = make_queue(completer, 5)
    chunks = queue.submit(CompletionRequest("abc")).chunks()
    assert (await anext(chunks)).text == "a"
    with pytest.raises(told):
        await anext(chunks)
    completer.fail_after = None
    assert await text_of(queue.submit(CompletionRequest("fine"))) == "fine"


async def test_stopping_tells_everyone_and_ends_the_thread(make_queue: MakeQueue) -> None:
    completer = EchoCompleter(prefill_s=30.0)
    queue = make_queue(completer, 5)
    answers = [queue.submit(LONG) for _ in range(3)]
    await until(lambda: bool(completer.requests))
    queue.stop()
    for answer in answers:
        with pytest.raises(ApiError, match="stopping"):
            await text_of(answer)
    with pytest.raises(ApiError, match="stopping"):
        queue.submit(LONG)
    assert await asyncio.to_thread(queue.join, 1.0)
    assert len(completer.requests) == 1


async def test_the_thread_outlives_a_closed_event_loop(make_queue: MakeQueue) -> None:
    completer = EchoCompleter(token_s=0.005)
    queue = make_queue(completer, 5)

    async def leave() -> None:
        queue.submit(CompletionRequest("x" * 50))

    await asyncio.to_thread(asyncio.run, leave())
    assert await text_of(queue.submit(CompletionRequest("here"))) == "here"


async def test_what_was_said_before_the_end_stands(make_queue: MakeQueue) -> None:
    """An answer that is cut ends as at a limit; one that waits is sent away."""
    completer = EchoCompleter(token_s=0.002)
    queue = make_queue(completer, 5)
    running, waiting = queue.submit(LONG), queue.submit(LONG)
    chunks = running.chunks()
    assert (await anext(chunks)).text == "x"
    queue.drain()
    with pytest.raises(ApiError, match="stopping"):
        await text_of(waiting)
    assert (await anext(chunks)).text == "x", "what runs goes on"
    queue.stop()
    last = [chunk async for chunk in chunks][-1]
    assert last.completion is not None and last.completion.finish_reason == "length"
    assert len(completer.requests) == 1


async def test_who_is_still_being_read_was_told_nothing() -> None:
    answer = Queued(LONG, asyncio.get_running_loop())
    answer.deliver(Chunk("", progress=PrefillProgress(8, 90, 0)))
    answer.cut()
    chunks = answer.chunks()
    assert (await anext(chunks)).progress is not None
    with pytest.raises(ApiError, match="stopping"):
        await anext(chunks)


async def retry_after_s(queue: AnswerQueue) -> int:
    with pytest.raises(BusyError) as caught:
        queue.submit(LONG)
    return int(getattr(caught.value, "retry_after_s", 0))


async def test_busy_says_when_a_place_will_be_free(make_queue: MakeQueue) -> None:
    """What answers took lately, or those that run if that is more, shared by these."""
    completer = EchoCompleter(prefill_s=30.0)
    queue = make_queue(completer, 0, slots=2)

    async def last(seconds: float) -> None:
        answer = queue.submit(LONG)
        await until(lambda: completer.num_open == 1)
        NOW[0] += seconds
        queue.abandon(answer)
        await until(lambda: not queue.is_busy)

    await last(20.0)
    await last(40.0)  # a quarter of the way from 20 to 40
    running = [queue.submit(LONG), queue.submit(LONG)]
    await until(lambda: completer.num_open == 2)
    assert await retry_after_s(queue) == 13
    NOW[0] += 60.0
    assert await retry_after_s(queue) == 30
    for answer in running:
        queue.abandon(answer)


async def test_requests_are_noted_where_somebody_wants_it() -> None:
    noted: list[CompletionRequest] = []
    queue = AnswerQueue(EchoCompleter(), 1, note=noted.append)
    queue.submit(LONG)
    assert noted == [LONG]
