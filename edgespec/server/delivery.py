"""Carries answers to one client, whole or as events, and notices when it leaves."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import replace

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from edgespec.errors import BusyError, EdgeSpecError
from edgespec.server.access import owner_of
from edgespec.server.answers import AnswerQueue, Queued
from edgespec.server.errors import ApiError, to_api_error
from edgespec.server.fields import Json
from edgespec.server.forms import AnswerForm, Told
from edgespec.types import Chunk, Completion, CompletionRequest

_MOST_AT_ONCE = 4
"""Answers to one request that are in the queue at a time: others want to be answered, too."""

_RETRY_S = 0.1
"""How long to wait for room for answers to a request of which one was let in."""


class AnswerResponse(Response):
    """Queues questions when it is called and stays until the client has the answers or is gone.

    The status line waits for the first chunk, so that what is wrong with a question (it is too
    long, its grammar does not parse) still becomes an HTTP status in a streamed answer.
    """

    def __init__(
        self,
        answers: AnswerQueue,
        questions: Sequence[CompletionRequest],
        form: AnswerForm,
        *,
        stream: bool,
        on_over: Callable[[Completion], None] = lambda _completion: None,
    ) -> None:
        """`on_over` is told each answer that came to an end."""
        super().__init__()
        self._group = _Group(answers, questions, form.wants_progress and stream)
        self._num_answers = len(questions)
        self._form = form
        self._stream = stream
        self._on_over = on_over

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; raises what the completer raised before its first chunk, BusyError if full."""
        self._group.owner = owner_of(scope)
        self._group.submit()
        watch = asyncio.create_task(self._watch(receive))
        try:
            if self._stream:
                await self._send_events(send)
            else:
                response = JSONResponse(await self._collect())
                await response(scope, receive, send)
        finally:
            watch.cancel()
            self._group.abandon()

    async def _watch(self, receive: Receive) -> None:
        """End the answers when the client leaves, be they queued, in prefill or half-sent."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self._group.abandon(ClientDisconnect())

    async def _collect(self) -> Json | list[Json]:
        arrived: list[list[Chunk]] = [[] for _ in range(self._num_answers)]
        async for index, chunk in self._group.chunks():
            arrived[index].append(chunk)
        told = [Told(tuple(each), _completion_of(each[-1] if each else None)) for each in arrived]
        for each in told:
            self._on_over(each.completion)
        return self._form.whole(told)

    async def _send_events(self, send: Send) -> None:
        chunks = self._group.chunks()
        first = await anext(chunks, None)
        headers = [
            (b"content-type", self._form.media_type.encode()),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        completions: dict[int, Completion] = {}
        try:
            opening = self._form.opening()
            if first is not None:
                opening += self._events_of(*first, completions)
            await self._send_body(send, opening)
            async for index, chunk in chunks:
                await self._send_body(send, self._events_of(index, chunk, completions))
            in_order = [_known(completions.get(index)) for index in range(self._num_answers)]
            await self._send_body(send, self._form.closing(in_order), is_last=True)
        except (EdgeSpecError, ApiError) as error:
            body = self._form.frame(self._form.failure(to_api_error(error)))
            await send({"type": "http.response.body", "body": body, "more_body": False})
        except ClientDisconnect:
            return

    def _events_of(
        self, index: int, chunk: Chunk, completions: dict[int, Completion]
    ) -> list[Json]:
        """The events of a chunk; raises ApiError if it ends an answer that was cancelled."""
        events = self._form.piece(index, chunk)
        if chunk.completion is not None:
            completions[index] = _completion_of(chunk)
            self._on_over(chunk.completion)
            events += self._form.ended(index, chunk.completion)
        return events

    async def _send_body(
        self, send: Send, events: Iterable[Json], *, is_last: bool = False
    ) -> None:
        body = b"".join(map(self._form.frame, events))
        if is_last:
            body += self._form.last_words
        if body or is_last:
            await send({"type": "http.response.body", "body": body, "more_body": not is_last})


class _Group:
    """The answers that one client waits for.

    Those that find no place in the queue follow those that did.
    """

    def __init__(
        self, queue: AnswerQueue, questions: Sequence[CompletionRequest], wants_progress: bool
    ) -> None:
        self._queue = queue
        self._left = deque(enumerate(questions))
        self._wants_progress = wants_progress
        self.owner = ""
        self._open: dict[int, tuple[Queued, asyncio.Task[None]]] = {}
        self._arrived: asyncio.Queue[tuple[int, Chunk | Exception | None]] = asyncio.Queue()

    def submit(self) -> None:
        """Queue what there is room for; raises BusyError if that is nothing."""
        while self._left and len(self._open) < _MOST_AT_ONCE:
            index, question = self._left[0]
            try:
                answer = self._queue.submit(replace(question, owner=self.owner))
            except BusyError:
                if self._open:
                    return
                raise
            self._left.popleft()
            self._open[index] = answer, asyncio.create_task(self._forward(index, answer))

    async def chunks(self) -> AsyncIterator[tuple[int, Chunk]]:
        """Yield chunks of all answers as they arrive; raises what ended one of them early."""
        while self._open:
            index, item = await self._arrived.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                del self._open[index]
                await self._follow_on()
            elif item.progress is None or self._wants_progress:
                yield index, item

    async def _follow_on(self) -> None:
        """Queue what is left as soon as there is room for one more."""
        while True:
            try:
                self.submit()
            except BusyError:
                await asyncio.sleep(_RETRY_S)
            else:
                return

    def abandon(self, reason: Exception | None = None) -> None:
        """End all answers; who waits for chunks is given the `reason`."""
        for answer, task in self._open.values():
            self._queue.abandon(answer)
            task.cancel()
        if reason is not None:
            self._arrived.put_nowait((0, reason))

    async def _forward(self, index: int, answer: Queued) -> None:
        try:
            async for chunk in answer.chunks():
                await self._arrived.put((index, chunk))
            await self._arrived.put((index, None))
        except (EdgeSpecError, ApiError) as error:
            await self._arrived.put((index, error))


def _completion_of(last: Chunk | None) -> Completion:
    """The summary in the last chunk; raises ApiError if the answer has no proper end."""
    completion = last.completion if last is not None else None
    return _known(completion)


def _known(completion: Completion | None) -> Completion:
    if completion is None or completion.finish_reason == "cancelled":
        raise ApiError(503, "the answer was cancelled", code="answer_cancelled")
    return completion
