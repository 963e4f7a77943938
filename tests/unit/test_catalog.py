"""The models of a user: listed with what this machine says of them, and pulled one at a time."""

from __future__ import annotations

import doctest
import importlib
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from models_support.files import known_model, tiny_gguf
from models_support.progress import RecordingProgress

from edgespec.cache.database import open_database
from edgespec.cache.facts import Facts
from edgespec.catalog import CatalogModel, PullMeter, PullProgress, PullState
from edgespec.errors import BusyError, UnknownModelError, UsageError
from edgespec.files.fingerprint import file_fingerprint
from edgespec.machine.identity import this_machine
from edgespec.models.registry import KnownModel
from edgespec.paths import Paths
from edgespec.runtime.catalog import LocalCatalog

CONTENT = tiny_gguf(num_floats=1000)
MODEL = known_model(CONTENT)
WITH_TERMS = known_model(CONTENT, name="termed", terms="Be kind.")


class Fetcher:
    """Pulls nothing, and says what it was asked for; waits for `go_on` if it is `held`."""

    def __init__(self, held: bool = False) -> None:
        self.asked: list[str] = []
        self.begun, self.go_on = threading.Event(), threading.Event()
        if not held:
            self.go_on.set()

    def __call__(
        self, ref: str, paths: Paths, _progress: PullProgress, _cancelled: Callable[[], bool]
    ) -> Path:
        self.asked.append(ref)
        self.begun.set()
        assert self.go_on.wait(5)
        return paths.models / f"{ref}.gguf"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(data=tmp_path / "data", cache=tmp_path / "cache")


def catalog(paths: Paths, pull: Fetcher | None = None) -> LocalCatalog:
    known: dict[str, KnownModel] = {model.name: model for model in (MODEL, WITH_TERMS)}
    return LocalCatalog(paths, 512, known, pull or Fetcher())


def put(paths: Paths, name: str = MODEL.name) -> Path:
    path = paths.ensure(paths.models) / f"{name}.gguf"
    path.write_bytes(CONTENT)
    return path


def pull(
    models: LocalCatalog, name: str, accept: Callable[[CatalogModel], bool] = lambda _: False
) -> Path:
    return models.pull(name, RecordingProgress(), accept, lambda: False)


def termed(models: LocalCatalog) -> CatalogModel:
    return next(model for model in models.models() if model.name == "termed")


def test_what_is_on_disk_comes_first_and_with_its_path(paths: Paths) -> None:
    path, own = put(paths), put(paths, "own")
    first, mine, other = catalog(paths).models()
    assert (first.name, first.is_on_disk, first.path) == (MODEL.name, True, path)
    assert (first.size_bytes, first.licence, first.roles) == (
        len(CONTENT),
        "Apache-2.0",
        ("drafter",),
    )
    assert (mine.path, mine.title, mine.licence) == (own, "own", None)
    assert mine.roles == ("target", "drafter")
    assert (other.name, other.is_on_disk, other.path) == ("termed", False, None)
    assert {model.fits for model in (first, mine, other)} == {"fits"}


def test_a_file_that_is_no_model_is_listed_as_such(paths: Paths) -> None:
    put(paths).write_bytes(b"no model")
    assert catalog(paths).models()[0].fits == "cannot be read"


def test_the_speed_is_the_one_remembered_last_of_this_machine(paths: Paths) -> None:
    path = put(paths)
    assert catalog(paths).models()[0].speed is None
    key = f"{file_fingerprint(path)}|build|{{}}|extra"
    with open_database(paths.database) as database:
        facts = Facts(database)
        for machine, ms in (("another", 1.0), (this_machine().key, 50.0)):
            facts.put("model", key.format(machine), {"table": {"short_ms": {"1": ms}}})
    assert catalog(paths).models()[0].speed == "20 tok/s here"


def test_terms_are_asked_once_and_then_not_shown(paths: Paths) -> None:
    fetcher = Fetcher()
    models = catalog(paths, fetcher)
    asked: list[CatalogModel] = []

    def refuse(model: CatalogModel) -> bool:
        asked.append(model)
        return False

    with pytest.raises(UsageError, match="terms were not accepted"):
        pull(models, "termed", refuse)
    assert [model.terms for model in asked] == ["Be kind."] and not fetcher.asked
    assert termed(models).terms == "Be kind."
    pull(models, "termed", lambda _: True)
    pull(models, "termed", lambda _: False)
    assert fetcher.asked == ["termed", "termed"]
    assert termed(models).terms is None


def test_what_is_on_disk_is_not_pulled(paths: Paths, tmp_path: Path) -> None:
    path, fetcher = put(paths), Fetcher()
    assert pull(catalog(paths, fetcher), MODEL.name) == path
    assert pull(catalog(paths, fetcher), str(tmp_path / "mine.gguf")) == tmp_path / "mine.gguf"
    assert not fetcher.asked
    with pytest.raises(UnknownModelError):
        pull(catalog(paths, fetcher), "nonsense")


def test_a_second_pull_of_a_model_is_refused(paths: Paths) -> None:
    fetcher = Fetcher(held=True)
    models = catalog(paths, fetcher)
    thread = threading.Thread(target=pull, args=(models, MODEL.name))
    thread.start()
    assert fetcher.begun.wait(5)
    with pytest.raises(BusyError, match="being pulled already"):
        pull(models, MODEL.name)
    fetcher.go_on.set()
    thread.join()
    pull(models, MODEL.name)


def metered(*events: tuple[float, int]) -> PullState:
    """The state after positions at times."""
    now = [0.0]
    meter = PullMeter("tiny", lambda _state: None, lambda: now[0])
    meter.begin("the Hub", 1000)
    for time, num_bytes in events:
        now[0] = time
        meter.at(num_bytes)
    return meter.state


def test_the_speed_of_a_pull_is_that_of_its_last_seconds() -> None:
    assert metered((0.0, 0), (0.1, 10)).bytes_per_second is None  # too soon to tell
    assert metered((0.0, 0), (1.0, 100)).bytes_per_second == 100
    long_ago = metered((0.0, 0), (10.0, 100), (12.0, 300), (16.0, 700))
    assert long_ago.bytes_per_second == 100
    assert long_ago.seconds_left == 3
    assert long_ago.share == 0.7


def test_what_was_there_before_is_no_speed() -> None:
    assert metered((0.0, 900), (1.0, 910)).bytes_per_second == 10
    assert metered((0.0, 0), (1.0, 500), (2.0, 0), (3.0, 10)).bytes_per_second == 10


def test_before_a_source_answers_what_was_said_last_is_told() -> None:
    shown: list[PullState] = []
    meter = PullMeter("tiny", shown.append)
    assert meter.state.describe() == "beginning"
    meter.say("another process is pulling tiny: waiting for it")
    assert shown[-1].describe() == "another process is pulling tiny: waiting for it"
    meter.begin("the Hub", None)
    meter.at(5)
    assert shown[-1].describe() == "5 bytes"


@pytest.mark.parametrize("name", ["catalog", "runtime.catalog_facts"])
def test_the_examples_hold(name: str) -> None:
    assert doctest.testmod(importlib.import_module(f"edgespec.{name}")).failed == 0
