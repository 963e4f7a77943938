"""Two workers on loopback, as processes, that hold a tiny model for a host."""

from __future__ import annotations

import contextlib
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cli_support import Cli, Running, assert_refused
from tiny_models import TinySpec, write_tiny_model

from edgespec.cache.database import open_database
from edgespec.cache.facts import Facts
from edgespec.errors import HostDied, NativeLibraryError, NetworkError
from edgespec.files.fingerprint import file_fingerprint
from edgespec.llama import rpc
from edgespec.machine.facts import MODEL
from edgespec.paths import Paths
from edgespec.runtime.host import Host
from edgespec.runtime.request import LoadRequest
from edgespec.types import Completion, CompletionRequest, SamplingParams
from edgespec.workers import PROTOCOL

SPEC = TinySpec(
    width=64, ffn_width=128, num_layers=4, num_vocab=512, quantization="Q8_0", repetitive=True
)
PROMPTS = (
    CompletionRequest("The mill stood empty for many years. The mill", max_tokens=96),
    CompletionRequest("Tell me.", SamplingParams(temperature=0.8, seed=3), max_tokens=96),
)


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    return Cli.of(tmp_path_factory)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("workers") / "spread.gguf", SPEC)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path, tmp_path / "cache")


@pytest.fixture
def host(paths: Paths) -> Iterator[Host]:
    with Host(paths) as it:
        yield it


BESIDE = """
import sys
from pathlib import Path
from edgespec.llama.context import Context, ContextOptions
from edgespec.llama.model import Model
model = Model(Path(sys.argv[1]), workers=(sys.argv[2],))
context = Context(model, ContextOptions(256, 1))
for position in range(4):
    context.decode([1], position)
Context(model, ContextOptions(256, 1)).close()
context.decode([1], 4)
"""


@contextlib.contextmanager
def worker(cli: Cli, port: int = 0, *options: str) -> Iterator[tuple[Running, str]]:
    """A worker that listens, and its address."""
    with cli.started("worker", "--port", str(port), "--threads", "1", *options) as running:
        running.wait_for("(Ctrl-C stops it)", "stderr")
        yield running, running.said("stderr").split(" at ", 1)[1].split()[0]


def over(*addresses: str) -> LoadRequest:
    return LoadRequest(num_threads=1, workers=addresses)


def load(host: Host, model: Path, *addresses: str) -> None:
    host.load(over(*addresses), model, lambda _line: None)


def answered(host: Host, request: CompletionRequest, *, speculate: bool = True) -> Completion:
    asked = CompletionRequest(
        request.prompt, request.sampling, request.max_tokens, speculate=speculate
    )
    *_, last = host.answer(asked)
    assert last.completion is not None
    return last.completion


def assert_kept_apart(paths: Paths, model: Path, worker: str) -> None:
    """What was measured of the model is that of its workers, not of this machine."""
    with open_database(paths.database) as database:
        facts = Facts(database)
        assert facts.newest(MODEL, f"{worker}/*|{file_fingerprint(model)}|*") is not None
        assert facts.newest(MODEL, f"{file_fingerprint(model)}|*") is None


def test_two_workers_say_the_same_with_and_without_drafts(
    cli: Cli, host: Host, paths: Paths, model: Path
) -> None:
    with worker(cli) as (_, one), worker(cli) as (_, two):
        load(host, model, one, two)
        workers = str(host.model.settings["workers"]).split(",")
        assert [each.split("/")[::2] for each in workers] == [[one, "8"], [two, "8"]]
        assert host.model.exactness == "identical"
        num_accepted, said = 0, []
        for request in PROMPTS:
            plain = answered(host, request, speculate=False)
            drafted = answered(host, request)
            assert drafted.token_ids == plain.token_ids
            num_accepted += drafted.stats.accepted
            said.append(plain.token_ids)
        assert num_accepted > 0
        assert_kept_apart(paths, model, one)
        again = LoadRequest(drafter="none", num_threads=1, workers=(one, two))
        host.load(again, model, lambda _line: None)
        assert answered(host, PROMPTS[0]).token_ids == said[0]


def test_a_worker_that_is_killed_costs_the_answer_under_way(
    cli: Cli, host: Host, model: Path
) -> None:
    with worker(cli) as (_, one), contextlib.ExitStack() as second:
        running, two = second.enter_context(worker(cli))
        load(host, model, one, two)
        before = answered(host, PROMPTS[0])
        answer = host.answer(CompletionRequest("On and on", max_tokens=7000))
        next(answer)
        running.send(signal.SIGKILL)
        with pytest.raises(HostDied, match=f"the worker {two} is gone") as caught:
            list(answer)
        assert "\n" not in str(caught.value)
        with pytest.raises(NetworkError, match=f"the worker {two} cannot be reached"):
            answered(host, PROMPTS[0])
        second.enter_context(worker(cli, int(two.split(":")[1])))
        assert answered(host, PROMPTS[0]).token_ids == before.token_ids


def test_a_worker_that_goes_in_loading_is_no_fault_of_the_file(host: Host, model: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{listener.getsockname()[1]}"

    def greet_once() -> None:
        with listener, listener.accept()[0] as connection:
            connection.recv(100)
            connection.sendall(struct.pack("<Q4B24x", 28, *PROTOCOL, 0, 0))

    with ThreadPoolExecutor(1) as pool:
        pool.submit(greet_once)
        with pytest.raises(HostDied, match=f"the worker {address} is gone"):
            load(host, model, address)
    host.load(LoadRequest(num_threads=1), model, lambda _line: None)
    assert host.model.settings["workers"] == ""


def test_contexts_come_and_go_beside_another(cli: Cli, model: Path) -> None:
    with worker(cli) as (_, one):
        done = subprocess.run(
            [sys.executable, "-c", BESIDE, model, one], capture_output=True, check=False
        )
    assert done.returncode == 0, done.stderr


def test_a_worker_serves_one_client(cli: Cli, host: Host, model: Path, tmp_path: Path) -> None:
    with worker(cli) as (running, one):
        load(host, model, one)
        ended = cli.run("run", "--model", model, "--rpc", one, "Hello", home=tmp_path / "other")
        assert_refused(ended, 7, one, "does not answer", "one client at a time")
        assert answered(host, PROMPTS[1]).token_ids
        assert running.stop(signal.SIGTERM).returncode == 0


@pytest.mark.parametrize(
    ("number", "options"),
    [(signal.SIGINT, ()), (signal.SIGTERM, ("--host", "0.0.0.0", "--insecure-network"))],
)
def test_a_worker_ends_when_told_to(
    cli: Cli, number: signal.Signals, options: tuple[str, ...]
) -> None:
    with worker(cli, 0, *options) as (running, _):
        ended = running.stop(number)
    assert (ended.returncode, ended.stdout) == (0, "")
    assert ended.stderr.count("\n") == 1


def test_a_build_without_workers_says_so(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "native_function", lambda *_types: lambda *_arguments: None)
    with pytest.raises(NativeLibraryError, match="knows no workers; run `make setup`"):
        rpc.check_build()
    with pytest.raises(NativeLibraryError, match="knows no workers"):
        rpc.place(model, ("127.0.0.1:1",))


def test_what_cannot_be_is_refused_in_one_line(cli: Cli, model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert_refused(cli.run("worker", "--port", port), 11, "taken by another program")
    on_model = ("run", "--model", model, "--threads", "1", "Hello", "--rpc")
    assert_refused(cli.run(*on_model, f"127.0.0.1:{port}"), 7, port, "cannot be reached")
    assert_refused(cli.run(*on_model, "nowhere"), 2, "is no address of a worker")
    assert_refused(cli.run("worker", "--host", "0.0.0.0", "--port", "0"), 2, "--insecure-network")
    assert_refused(cli.run("worker", "--host", "::1"), 2, "IPv4")
    several = ("serve", "--model", model, "--on-demand", "--rpc", "127.0.0.1:1")
    assert_refused(cli.run(*several), 2, "--rpc is for one model")
