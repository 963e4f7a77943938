"""Carries one answer to one client, whole or as server-sent events, and notices when it leaves."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Iterable

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from edgespec.errors import EdgeSpecError
from edgespec.server.access import owner_of
from edgespec.server.answers import AnswerQueue, Queued
from edgespec.server.errors import ApiError, to_api_error
from edgespec.server.forms import AnswerForm, Json
from edgespec.types import Chunk, Completion, CompletionRequest

_EVENT_STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
]
_DONE = b"data: [DONE]\n\n"


class AnswerResponse(Response):
    """Queues a question when it is called and stays until the client has the answer or is gone.

    The status line waits for the first chunk, so that what is wrong with the question (it is too
    long, its grammar does not parse) still becomes an HTTP status in a streamed answer.
    """

    def __init__(
        self, answers: AnswerQueue, question: CompletionRequest, form: AnswerForm, *, stream: bool
    ) -> None:
        super().__init__()
        self._answers = answers
        self._question = question
        self._form = form
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; raises what the completer raised before its first chunk, BusyError if full."""
        question = dataclasses.replace(self._question, owner=owner_of(scope))
        answer = self._answers.submit(question)
        watch = asyncio.create_task(self._watch(answer, receive))
        try:
            chunks = answer.chunks()
            if self._stream:
                await self._send_events(chunks, send)
            else:
                response = JSONResponse(await self._collect(chunks))
                await response(scope, receive, send)
        finally:
            watch.cancel()
            self._answers.abandon(answer)

    async def _watch(self, answer: Queued, receive: Receive) -> None:
        """End the answer when the client leaves, be it queued, in prefill or half-sent."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self._answers.abandon(answer, ClientDisconnect())

    async def _collect(self, chunks: AsyncIterator[Chunk]) -> Json:
        arrived = [chunk async for chunk in chunks]
        return self._form.whole(arrived, _completion_of(arrived[-1] if arrived else None))

    async def _send_events(self, chunks: AsyncIterator[Chunk], send: Send) -> None:
        first = await anext(chunks, None)
        await send({"type": "http.response.start", "status": 200, "headers": _EVENT_STREAM_HEADERS})
        try:
            opening = self._form.opening()
            last = first
            if first is not None:
                await _send_body(send, _events([opening, self._form.piece(first)]))
            async for chunk in chunks:
                last = chunk
                await _send_body(send, _events([self._form.piece(chunk)]))
            closing = self._form.closing(_completion_of(last))
            await _send_body(send, _events(closing) + _DONE, more=False)
        except (EdgeSpecError, ApiError) as error:
            await _send_body(send, _events([to_api_error(error).content]), more=False)
        except ClientDisconnect:
            return


def _completion_of(last: Chunk | None) -> Completion:
    """The summary in the last chunk; raises ApiError if the answer has no proper end."""
    completion = last.completion if last is not None else None
    if completion is None or completion.finish_reason == "cancelled":
        raise ApiError(503, "the answer was cancelled", code="answer_cancelled")
    return completion


def _events(objects: Iterable[Json | None]) -> bytes:
    """Server-sent events; ASCII, because some clients split lines at other line separators."""
    return b"".join(
        f"data: {json.dumps(item, separators=(',', ':'), allow_nan=False)}\n\n".encode("ascii")
        for item in objects
        if item is not None
    )


async def _send_body(send: Send, body: bytes, *, more: bool = True) -> None:
    if body or not more:
        await send({"type": "http.response.body", "body": body, "more_body": more})
