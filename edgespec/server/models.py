"""The models that clients can ask for by name: loaded when asked for, let go when others need room.

    offered -> loading -> loaded -> (idle too long, or its memory is needed) -> offered

A name is looked up among those that are offered and nowhere else: it is never a path. With one
model every name means that one. `acquire` is for the event loop; what takes long is done in
threads. A model that is asked for stays loaded while answers of it run or wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from edgespec.errors import EdgeSpecError
from edgespec.protocols import TextCompleter
from edgespec.server.answers import AnswerQueue, stopping
from edgespec.server.errors import ApiError, BusyApiError
from edgespec.server.settings import ServerSettings
from edgespec.types import CompletionRequest, ModelDetails, ServedModel

_LOOK_S = 0.5
"""How often is looked for models that were idle for too long."""


class Source(Protocol):
    """A model that can be loaded, let go, and loaded again."""

    @property
    def name(self) -> str:
        """What clients call it."""
        ...

    @property
    def num_bytes(self) -> int:
        """Memory that its weights take, about."""
        ...

    def load(self) -> TextCompleter:
        """Load it, in a thread; raises EdgeSpecError. After the first time the same completer."""
        ...

    def cancel_load(self) -> None:
        """Make a `load` under way raise; from any thread."""
        ...

    def let_go(self) -> bool:
        """Give back its memory, unless answers are under way: False then."""
        ...


@dataclass(frozen=True, slots=True)
class Served:
    """A model that is loaded: ask `completer` for what takes no time, `answers` for answers."""

    completer: TextCompleter
    answers: AnswerQueue

    @property
    def name(self) -> str:
        """What clients call it, and what answers say."""
        return self.completer.model.name

    @property
    def details(self) -> ModelDetails:
        """What its file tells of itself."""
        return self.completer.model.details


@dataclass(frozen=True, slots=True)
class Offer:
    """A model that can be asked for; `model` is known once it was loaded."""

    name: str
    num_bytes: int
    model: ServedModel | None
    is_loaded: bool


class _Entry:
    """What is known of one source."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.loading: asyncio.Task[None] | None = None
        self.served: Served | None = None
        self.is_loaded = False
        self.used_at = 0.0

    @property
    def offer(self) -> Offer:
        model = self.served.completer.model if self.served is not None else None
        return Offer(self.source.name, self.source.num_bytes, model, self.is_loaded)

    @property
    def is_busy(self) -> bool:
        is_answering = self.served is not None and self.served.answers.is_busy
        return is_answering or self.loading is not None


class Models:
    """All models of a server; the first of them is there from the start."""

    def __init__(
        self,
        sources: Sequence[Source],
        settings: ServerSettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`sources` have different names; there is one at least. `clock` gives seconds."""
        self._entries = {source.name: _Entry(source) for source in sources}
        self._first = self._entries[sources[0].name]
        self._settings = settings
        self._clock = clock
        self._num_waiting = 0
        self._is_stopping = False
        self.error: EdgeSpecError | None = None
        self.on_failure: Callable[[], None] = lambda: None

    @property
    def default(self) -> Served:
        """The model that requests without a name mean; only while not `is_loading`."""
        served = self._first.served
        assert served is not None, "nothing is loaded yet"
        return served

    @property
    def is_loading(self) -> bool:
        """Whether the first model is not there yet."""
        return self._first.served is None

    @property
    def is_answering(self) -> bool:
        """Whether any answer runs."""
        return any(each.answers.is_answering for each in self.loaded())

    def loaded(self) -> Sequence[Served]:
        """The models that were loaded."""
        return [entry.served for entry in self._entries.values() if entry.served is not None]

    def list(self) -> list[Offer]:
        """The models that can be asked for."""
        return [entry.offer for entry in self._entries.values()]

    def named(self, name: str) -> Offer:
        """The model of this very name; raises ApiError 404 where there is none."""
        if name in self._entries:
            return self._entries[name].offer
        raise ApiError(
            404,
            f"the model {name!r} is not served here; {', '.join(self._entries)} can be had",
            param="model",
            code="model_not_found",
        )

    async def acquire(self, name: str | None = None) -> Served:
        """The model that a request means, loaded; waits for that.

        Raises ApiError 404 for an unknown name, BusyError where too many wait already or memory
        has no room now, and what kept the model from being loaded.
        """
        if name is None or len(self._entries) == 1:
            entry = self._first
        else:
            entry = self._entries[self.named(name).name]
        if self._is_stopping:
            raise stopping()
        if not entry.is_loaded:
            await self._wait_for(entry)
        entry.used_at = self._clock()
        assert entry.served is not None
        return entry.served

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """In this block the first model is loaded and idle ones are let go; then all ends."""
        tasks = [asyncio.create_task(self._load_first()), asyncio.create_task(self._watch())]
        try:
            yield
        finally:
            self.stop()
            while loading := [each.loading for each in self._entries.values() if each.loading]:
                for entry in self._entries.values():
                    entry.source.cancel_load()  # again: the load may only just begin
                await asyncio.wait(loading, timeout=_LOOK_S)
            for task in tasks:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    def let_go_idle(self) -> Sequence[str]:
        """Let go the models that were idle for as long as they may be; the names of these."""
        limit = self._settings.keep_alive_s
        if limit is None:
            return []
        due = []
        for name, entry in self._entries.items():
            if entry.is_busy:
                entry.used_at = self._clock()
            elif entry.is_loaded and self._clock() - entry.used_at >= limit and _let_go(entry):
                due.append(name)
        return due

    def drain(self) -> None:
        """Take no more requests; answers that run go on."""
        self._is_stopping = True
        for entry in self._entries.values():
            if entry.loading is not None:
                entry.source.cancel_load()
            if entry.served is not None:
                entry.served.answers.drain()

    def stop(self) -> None:
        """The same, and cut what runs."""
        self.drain()
        for served in self.loaded():
            served.answers.stop()

    def join(self, timeout_s: float) -> bool:
        """After `stop`, wait for the threads to end; True if they did."""
        ended = [served.answers.join(timeout_s) for served in self.loaded()]
        return all(ended)

    async def _wait_for(self, entry: _Entry) -> None:
        """Have a model loaded, once for all who wait for it."""
        if self._num_waiting >= self._settings.max_queue + self._settings.slots:
            raise BusyApiError("the model is loading and too many wait for it", "try later", 5)
        if entry.loading is None:
            entry.loading = asyncio.create_task(self._load(entry))
            entry.loading.add_done_callback(_heard)
        self._num_waiting += 1
        try:
            await asyncio.shield(entry.loading)
        finally:
            self._num_waiting -= 1

    async def _load(self, entry: _Entry) -> None:
        try:
            await asyncio.to_thread(self._make_room_for, entry)
            completer = await asyncio.to_thread(entry.source.load)
            if entry.served is None:
                entry.served = self._serve(completer)
            entry.is_loaded, entry.used_at = True, self._clock()
        except EdgeSpecError as error:
            raise (stopping() if self._is_stopping else error) from None
        finally:
            entry.loading = None

    def _serve(self, completer: TextCompleter) -> Served:
        note = _show if self._settings.log_prompts else _ignore
        answers = AnswerQueue(completer, self._settings.max_queue, self._settings.slots, note)
        answers.start()
        if self._is_stopping:
            answers.drain()
        return Served(completer, answers)

    def _make_room_for(self, wanted: _Entry) -> None:
        """Let go models that nobody uses, the one not used for longest first."""
        limit = self._settings.memory_bytes
        if limit is None:
            return
        held = [e for e in self._entries.values() if e is not wanted and _holds_memory(e)]
        for entry in sorted(held, key=lambda entry: entry.used_at):
            if _num_bytes([*held, wanted]) <= limit:
                return
            if not entry.is_busy and _let_go(entry):
                held.remove(entry)
        if held and _num_bytes([*held, wanted]) > limit:
            raise BusyApiError("memory is taken by another model that is in use", "try later", 10)

    async def _load_first(self) -> None:
        """Load the model that there is from the start; where that fails nothing can be served."""
        try:
            await self.acquire()
        except EdgeSpecError as error:
            self.error = error
            self.on_failure()
        except ApiError:  # the server ends
            pass

    async def _watch(self) -> None:
        while self._settings.keep_alive_s is not None:
            await asyncio.sleep(_LOOK_S)
            await asyncio.to_thread(self.let_go_idle)


def _show(request: CompletionRequest) -> None:
    """For the person at the terminal who asked for it."""
    asked = request.prompt
    turns = asked if isinstance(asked, str) else [(each.role, each.content) for each in asked]
    print(f"asked: {json.dumps(turns, ensure_ascii=False)}", file=sys.stderr, flush=True)


def _ignore(_request: CompletionRequest) -> None:
    """What is asked is nobody else's business."""


def _heard(task: asyncio.Task[None]) -> None:
    """Whoever waited may be gone: nobody need hear of an error."""
    if not task.cancelled():
        task.exception()


def _holds_memory(entry: _Entry) -> bool:
    return entry.is_loaded or entry.loading is not None


def _num_bytes(entries: Sequence[_Entry]) -> int:
    return sum(entry.source.num_bytes for entry in entries)


def _let_go(entry: _Entry) -> bool:
    if not entry.source.let_go():
        return False
    entry.is_loaded = False
    return True


class Ready:
    """Implements `Source` for a completer that is there already and stays."""

    num_bytes = 0

    def __init__(self, completer: TextCompleter) -> None:
        self._completer = completer

    @property
    def name(self) -> str:
        """That of its model."""
        return self._completer.model.name

    def load(self) -> TextCompleter:
        """The completer itself."""
        return self._completer

    def cancel_load(self) -> None:
        """There is nothing to cancel."""

    def let_go(self) -> bool:
        """It stays."""
        return False
