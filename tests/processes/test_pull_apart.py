"""A pull in a process of its own: it comes, is ended at once, goes on, and outlives nobody."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from models_support.files import tiny_gguf
from models_support.programs import clean_environment
from models_support.progress import RecordingProgress
from models_support.servers import FakeHub, HubEntry

from edgespec.errors import Cancelled, UnknownModelError
from edgespec.models.pull_apart import pull_apart
from edgespec.paths import user_paths
from edgespec.runtime.catalog import LocalCatalog

CONTENT = tiny_gguf(num_floats=200_000)
REF = "hf:acme/tiny-GGUF:tiny.gguf"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    with FakeHub() as server:
        server.files["acme/tiny-GGUF/tiny.gguf"] = HubEntry(CONTENT)
        for name, value in clean_environment(tmp_path, HF_ENDPOINT=server.url).items():
            monkeypatch.setenv(name, value)
        yield server


def test_a_model_comes_whole_and_is_listed(hub: FakeHub) -> None:
    progress = RecordingProgress()
    catalog = LocalCatalog(user_paths())
    path = catalog.pull(REF, progress, lambda _: False, lambda: False)
    assert path.read_bytes() == CONTENT
    assert progress.begun == [("the Hub", len(CONTENT))]
    assert progress.positions == sorted(progress.positions)
    assert [model.path for model in catalog.models() if model.is_on_disk] == [path]


def test_a_cancelled_pull_goes_on_where_it_was(hub: FakeHub) -> None:
    hub.script.pause_after = 400_000
    with pytest.raises(Cancelled):
        pull_apart(REF, user_paths(), RecordingProgress(), hub.script.paused.is_set)
    hub.script.go_on.set()
    progress = RecordingProgress()
    path = pull_apart(REF, user_paths(), progress, lambda: False)
    assert path.read_bytes() == CONTENT
    assert hub.body_requests[-1].range is not None
    assert progress.said[-1].startswith("going on from")


def test_errors_come_through_as_what_they_are(hub: FakeHub) -> None:
    with pytest.raises(UnknownModelError, match="no file"):
        pull_apart("hf:acme/tiny-GGUF:other.gguf", user_paths(), RecordingProgress(), lambda: False)


CALLER = """
import sys
sys.path[:0] = {path}
from models_support.progress import RecordingProgress
from edgespec.models.pull_apart import pull_apart
from edgespec.paths import user_paths
pull_apart({ref!r}, user_paths(), RecordingProgress(), lambda: False)
"""


def test_a_caller_that_is_killed_leaves_no_pull_behind(hub: FakeHub) -> None:
    hub.script.pause_after = 100_000
    program = CALLER.format(path=sys.path, ref=REF)
    with subprocess.Popen([sys.executable, "-c", program]) as caller:
        assert hub.script.paused.wait(30)
        (child,) = psutil.Process(caller.pid).children()
        caller.kill()
    child.wait(10)


HEAVY = ("llama_cpp", "edgespec.llama.library", "huggingface_hub", "httpx2")


def test_a_face_lists_and_pulls_without_the_native_library(hub: FakeHub) -> None:
    program = f"""
import sys
sys.path[:0] = {sys.path}
from models_support.progress import RecordingProgress
from edgespec.paths import user_paths
from edgespec.runtime.catalog import LocalCatalog
catalog = LocalCatalog(user_paths())
catalog.pull({REF!r}, RecordingProgress(), lambda _: False, lambda: False)
assert catalog.models()[0].is_on_disk
print(*sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = done.stdout.split()
    assert [name for name in HEAVY if name in loaded] == []
