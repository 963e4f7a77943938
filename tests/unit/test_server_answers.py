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
from edgespec.types import CompletionRequest

LONG = CompletionRequest("x" * 2000)


@pytest.fixture
async def make_queue() -> AsyncIterator[Callable[[EchoCompleter, int], AnswerQueue]]:
    made: list[AnswerQueue] = []

    def make(completer: EchoCompleter, max_waiting: int) -> AnswerQueue:
        queue = AnswerQueue(completer, max_waiting)
        queue.start()
        made.append(queue)
        return queue

    yield make
    for queue in made:
        queue.stop()
        assert await asyncio.to_thread(queue.join, 5.0)


MakeQueue = Callable[[EchoCompleter, int], AnswerQueue]


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
    assert not completer.overlapped
    assert threading.get_ident() not in completer.threads
    assert len(completer.threads) == 1
    await until(lambda: not queue.is_answering)


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


async def test_busy_says_how_long_the_last_answer_took(make_queue: MakeQueue) -> None:
    queue = make_queue(EchoCompleter(prefill_s=1.1), 0)
    await text_of(queue.submit(CompletionRequest("a")))
    await until(lambda: not queue.is_answering)
    queue.submit(LONG)
    with pytest.raises(BusyError) as caught:
        queue.submit(LONG)
    assert getattr(caught.value, "retry_after_s", None) == 2
