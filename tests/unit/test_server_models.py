"""Models by name: loaded when asked for, let go when idle or in the way, and what clients see."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field

import pytest
from server_support import EchoCompleter, post, send, serving, wait_until

from edgespec.errors import BusyError, EdgeSpecError, LoadCancelled, ModelFileError
from edgespec.server.errors import ApiError
from edgespec.server.models import Models
from edgespec.server.settings import ServerSettings
from edgespec.types import CompletionRequest, ServedModel

TEXT = "/v1/completions"


class NamedEcho(EchoCompleter):
    """An `EchoCompleter` whose model has a name of its own."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    @property
    def model(self) -> ServedModel:
        return ServedModel(self.name, "says it again", 4096, 1234, "context", "identical")


@dataclass
class FakeSource:
    """Implements `edgespec.server.models.Source`; `hold` keeps loads waiting until it is set."""

    name: str
    num_bytes: int = 100
    error: EdgeSpecError | None = None
    num_loads: int = 0
    is_loaded: bool = False
    is_in_use: bool = False
    hold: threading.Event = field(default_factory=threading.Event)
    is_cancelled: bool = False

    def __post_init__(self) -> None:
        self.hold.set()
        self.completer = NamedEcho(self.name)

    def load(self) -> EchoCompleter:
        self.num_loads += 1
        self.hold.wait(10)
        if self.is_cancelled:
            raise LoadCancelled("cancelled")
        if self.error is not None:
            raise self.error
        self.is_loaded = True
        return self.completer

    def cancel_load(self) -> None:
        self.is_cancelled = True
        self.hold.set()

    def let_go(self) -> bool:
        if self.is_in_use:
            return False
        self.is_loaded = False
        return True


def held(name: str) -> FakeSource:
    source = FakeSource(name)
    source.hold.clear()
    return source


async def test_a_model_is_loaded_once_for_all_who_ask() -> None:
    first, second = FakeSource("first"), held("second")
    models = Models([first, second], ServerSettings())
    async with models.running():
        assert (await models.acquire()).name == "first"
        assert [offer.is_loaded for offer in models.list()] == [True, False]
        waiting = [asyncio.create_task(models.acquire("second")) for _ in range(3)]
        await asyncio.sleep(0)
        second.hold.set()
        assert {(await each).name for each in waiting} == {"second"}
        assert (first.num_loads, second.num_loads) == (1, 1)
        assert await models.acquire("second") is await models.acquire("second")
    assert models.join(5.0)


@pytest.mark.parametrize("name", ["other", "", "../first", "/etc/passwd", "first.gguf", "hf:a/b"])
async def test_a_name_is_looked_up_among_those_that_are_offered(name: str) -> None:
    models = Models([FakeSource("first"), FakeSource("second")], ServerSettings())
    async with models.running():
        with pytest.raises(ApiError, match="not served here; first, second") as caught:
            await models.acquire(name)
    assert (caught.value.status, caught.value.code) == (404, "model_not_found")


async def test_where_there_is_one_model_every_name_means_it() -> None:
    models = Models([FakeSource("first")], ServerSettings())
    async with models.running():
        assert (await models.acquire("gpt-4o")).name == "first"


async def test_a_load_that_fails_is_told_and_tried_again() -> None:
    broken = FakeSource("broken", error=ModelFileError("cut off"))
    models = Models([FakeSource("first"), broken], ServerSettings())
    async with models.running():
        for count in (1, 2):
            with pytest.raises(ModelFileError):
                await models.acquire("broken")
            assert broken.num_loads == count
        broken.error = None
        assert (await models.acquire("broken")).name == "broken"


async def test_not_all_the_world_may_wait_for_a_load() -> None:
    first = held("first")
    models = Models([first], ServerSettings(max_queue=1, slots=2))
    async with models.running():
        waiting = [asyncio.create_task(models.acquire()) for _ in range(2)]
        await asyncio.sleep(0.01)
        with pytest.raises(BusyError):
            await models.acquire()
        first.hold.set()
        await asyncio.gather(*waiting)


async def test_what_was_not_used_for_longest_makes_room() -> None:
    now = [0.0]
    sources = [FakeSource(name) for name in ("first", "second", "third")]
    settings = ServerSettings(memory_bytes=250)
    models = Models(sources, settings, lambda: now[0])

    async def use(name: str) -> None:
        now[0] += 1.0
        await models.acquire(name)

    async with models.running():
        for name in ("first", "second", "first", "third"):
            await use(name)
        assert [source.is_loaded for source in sources] == [True, False, True]
        sources[0].is_in_use = sources[2].is_in_use = True
        with pytest.raises(BusyError, match="memory"):
            await use("second")
        sources[0].is_in_use = False
        await use("second")
        assert [source.is_loaded for source in sources] == [False, True, True]


async def test_an_idle_model_is_let_go_and_comes_back() -> None:
    now = [0.0]
    source = FakeSource("first")
    models = Models([source], ServerSettings(keep_alive_s=10.0), lambda: now[0])
    async with models.running():
        served = await models.acquire()
        answer = served.answers.submit(CompletionRequest("x" * 2000))
        source.completer.token_s = 5.0
        for now[0] in (9.0, 30.0):
            assert models.let_go_idle() == [], "it answers"
        served.answers.abandon(answer)
        while served.answers.is_busy:
            await asyncio.sleep(0.002)
        now[0] = 39.0
        assert models.let_go_idle() == []
        now[0] = 40.0
        assert models.let_go_idle() == ["first"]
        assert not source.is_loaded
        assert await models.acquire() is served
        assert source.num_loads == 2


async def test_by_default_nothing_is_let_go() -> None:
    now = [0.0]
    models = Models([FakeSource("first")], ServerSettings(), lambda: now[0])
    async with models.running():
        await models.acquire()
        now[0] = 1e9
        assert models.let_go_idle() == []


def test_clients_may_come_while_the_model_is_loading() -> None:
    """/health tells them so, and requests wait."""
    source = held("first")
    with serving(Models([source], ServerSettings(port=0))) as server:
        for path in ("/health", "/v1/models"):
            assert send(server, "GET", path).status == (503 if path == "/health" else 200)
        assert send(server, "GET", "/health").json["status"] == "loading"
        threading.Timer(0.1, source.hold.set).start()
        assert post(server, TEXT, {"prompt": "hi"}).json["choices"][0]["text"] == "hi"
        assert send(server, "GET", "/health").json["status"] == "ok"


def test_a_server_that_ends_while_it_loads_tells_those_who_wait() -> None:
    source = held("first")
    statuses: list[int] = []
    with serving(Models([source], ServerSettings(port=0))) as server:
        asking = threading.Thread(
            target=lambda: statuses.append(post(server, TEXT, {"prompt": "hi"}).status)
        )
        asking.start()
        wait_until(lambda: source.num_loads == 1)
        threading.Event().wait(0.1)
    asking.join(5)
    assert statuses == [503]


def test_a_server_whose_first_model_does_not_load_ends() -> None:
    models = Models([FakeSource("first", error=ModelFileError("cut off"))], ServerSettings(port=0))
    with serving(models) as server:
        wait_until(lambda: not server.is_alive)
    assert isinstance(models.error, ModelFileError)


def test_several_models_are_listed_and_answer_by_their_names() -> None:
    models = Models([FakeSource("first"), FakeSource("second")], ServerSettings(port=0))
    with serving(models) as server:
        listed = send(server, "GET", "/v1/models").json["data"]
        assert [each["id"] for each in listed] == ["first", "second"]
        assert post(server, TEXT, {"prompt": "hi", "model": "second"}).json["model"] == "second"
        assert post(server, TEXT, {"prompt": "hi"}).json["model"] == "first"
        assert post(server, TEXT, {"prompt": "hi", "model": "third"}).status == 404
        assert send(server, "GET", "/v1/models/..%2fetc").status == 404
