"""The host over real llama.cpp on tiny models: the same answers, and what llama.cpp dies of."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_support import Cli, Ended, assert_refused
from rigs import WriteModel
from server_support import wait_until
from tiny_models import TinySpec

from edgespec.errors import (
    ContextOverflowError,
    GrammarError,
    HostDied,
    LoadCancelled,
    ModelFileError,
    UsageError,
)
from edgespec.models.trials import Trials
from edgespec.paths import Paths
from edgespec.runtime.host import Host, try_again
from edgespec.runtime.request import LoadRequest
from edgespec.runtime.running import load
from edgespec.types import Chunk, CompletionRequest, Constraint, Message, SamplingParams

QUICK = TinySpec(repetitive=True)
OTHER = TinySpec(width=64, ffn_width=128, quantization="Q8_0", seed=5)
OPTIONS = LoadRequest(num_threads=1)
YES_OR_NO = Constraint("gbnf", 'root ::= "yes" | "no"')

REQUESTS = (
    CompletionRequest((Message("user", "Grüße an alle"),), max_tokens=40),
    CompletionRequest("Tell me.", SamplingParams(temperature=0.9, seed=3), max_tokens=40),
    CompletionRequest("Say yes.", SamplingParams(constraint=YES_OR_NO)),
    CompletionRequest("Count.", max_tokens=20, stop=("as",), num_top_logprobs=3),
    CompletionRequest("Plainly.", max_tokens=20, speculate=False),
)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    folder = tmp_path_factory.mktemp("host")
    return Paths(folder, folder / "cache")


@pytest.fixture(scope="module")
def host(paths: Paths, write_model: WriteModel) -> Iterator[Host]:
    with Host(paths) as it:
        it.load(OPTIONS, write_model(QUICK), lambda _line: None)
        yield it


def text_of(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def test_answers_are_the_same_in_another_process(
    host: Host, paths: Paths, write_model: WriteModel
) -> None:
    with load(OPTIONS, write_model(QUICK), paths, lambda _line: None) as loaded:
        for request in REQUESTS:
            here, there = list(loaded.completer.answer(request)), list(host.answer(request))
            assert text_of(there) == text_of(here)
            ours, theirs = here[-1].completion, there[-1].completion
            assert ours is not None and theirs is not None
            assert theirs.token_ids == ours.token_ids
            assert theirs.finish_reason == ours.finish_reason
            logprobs = [
                [entry for chunk in each for entry in chunk.logprobs] for each in (here, there)
            ]
            assert logprobs[0] == logprobs[1]
        conversation = [Message("user", "How long?")]
        assert host.count_tokens(conversation) == loaded.completer.count_tokens(conversation)
        assert host.decode_token(40) == loaded.completer.decode_token(40)
        assert host.model == loaded.completer.model


def test_errors_of_llama_keep_their_kind(host: Host, write_model: WriteModel) -> None:
    with pytest.raises(ContextOverflowError):
        list(host.answer(CompletionRequest("long " * 5000)))
    nothing = SamplingParams(constraint=Constraint("gbnf", "root ::= nothing"))
    with pytest.raises(GrammarError):
        list(host.answer(CompletionRequest("a", nothing)))
    with pytest.raises(UsageError, match="temperature"):
        host.load(OPTIONS, write_model(QUICK), lambda _line: None, SamplingParams(temperature=-1.0))
    assert text_of(list(host.answer(REQUESTS[0])))


def host_pids() -> set[int]:
    listed = subprocess.run(
        ["ps", "-o", "pid=,stat=,args=", "--ppid", str(os.getpid())],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [line.split(None, 2) for line in listed.stdout.splitlines() if "host_child" in line]
    return {int(pid) for pid, stat, _ in rows if not stat.startswith("Z")}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_kill_in_an_answer_costs_that_answer(host: Host, number: signal.Signals) -> None:
    before = text_of(list(host.answer(REQUESTS[0])))
    answer = host.answer(CompletionRequest("On and on", max_tokens=1500))
    next(answer)
    [pid] = host_pids()
    os.kill(pid, number)
    with pytest.raises(HostDied):
        list(answer)
    assert text_of(list(host.answer(REQUESTS[0]))) == before


def test_models_are_switched_between_answers(
    host: Host, paths: Paths, write_model: WriteModel, tmp_path: Path
) -> None:
    first = text_of(list(host.answer(REQUESTS[0])))
    served = host.load(OPTIONS, write_model(OTHER), lambda _line: None)
    assert served.name == write_model(OTHER).stem == host.model.name
    second = text_of(list(host.answer(REQUESTS[0])))
    assert second != first
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(write_model(QUICK).read_bytes()[:-1000])
    with pytest.raises(ModelFileError):
        host.load(OPTIONS, bad, lambda _line: None)
    assert text_of(list(host.answer(REQUESTS[0]))) == second
    plain = LoadRequest(drafter="none", num_threads=1)
    assert host.load(plain, write_model(QUICK), lambda _line: None).drafter == "none"
    assert text_of(list(host.answer(REQUESTS[0]))) == first


def recorded(paths: Paths) -> list[tuple[str, str]]:
    with contextlib.closing(sqlite3.connect(paths.database)) as connection:
        return connection.execute("SELECT role, content FROM messages ORDER BY id").fetchall()


def test_what_was_asked_is_written_down_before_its_answer(
    paths: Paths, write_model: WriteModel
) -> None:
    asked = (Message("system", "Be brief."), Message("user", "Where is my message?"))
    request = CompletionRequest(asked, max_tokens=6000)  # more than it takes to write it down
    told = [(message.role, message.content) for message in asked]
    others = host_pids()
    with Host(paths) as host:
        long = dataclasses.replace(OPTIONS, num_context=1 << 15)
        host.load(long, write_model(QUICK), lambda _line: None)
        answer = host.answer(request)
        while recorded(paths)[-2:] != told:
            next(answer)
        [pid] = host_pids() - others
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(HostDied):
            list(answer)
        short = CompletionRequest(asked, max_tokens=5)
        said = text_of(list(host.answer(short)))
    wanted = [*told, *told, ("assistant", said)]
    assert recorded(paths)[-5:] == wanted, "the new host knows of no other"


# -- a file that kills llama.cpp ---------------------------------------------------------------


@pytest.fixture
def crash_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """llama.cpp crashes on files that are called killer, and takes long for slow ones, in hosts."""
    shim = tmp_path / "shim"
    shim.mkdir()
    (shim / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'edgespec.runtime.host_child' in sys.orig_argv:\n"
        "    import ctypes, edgespec.llama.library as library\n"
        "    real = library.api.llama_model_load_from_file\n"
        "    def load(path, params):\n"
        "        if path.endswith(b'killer.gguf'):\n"
        "            ctypes.string_at(0)\n"
        "        if path.endswith(b'slow.gguf'):\n"
        "            open(path + b'.begun', 'w').close()\n"
        "            ctypes.CDLL(None).sleep(600)\n"
        "        return real(path, params)\n"
        "    library.api.llama_model_load_from_file = load\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(shim))


@pytest.mark.usefixtures("crash_on")
def test_a_killer_is_left_out_refused_and_tried_again_by_doctor(
    tmp_path: Path, write_model: WriteModel
) -> None:
    cli = Cli(tmp_path / "cli")
    models = cli.home / "models"
    models.mkdir(parents=True)
    paths = Paths(cli.home, cli.home / "cache")
    target, killer = models / "target.gguf", models / "killer.gguf"
    target.write_bytes(write_model(QUICK).read_bytes())
    killer.write_bytes(write_model(OTHER).read_bytes())
    shim = {"PYTHONPATH": os.environ["PYTHONPATH"]}
    options = ("--threads", "1", "--max-tokens", "4", "hello")

    def run(*arguments: str | Path, environment: dict[str, str] = shim) -> Ended:
        return cli.run("run", *arguments, *options, environment=environment)

    assert_refused(run("--model", killer), 6, "wrong memory address")
    assert Trials(paths.trials).is_marked(killer)
    refused = ("killer.gguf killed the engine when it was first loaded", "edgespec doctor --model")
    assert_refused(run("--model", killer), 3, *refused)
    assert_refused(run("--model", target, "--drafter", killer), 3, *refused)
    assert run("--model", target, "--drafter", "auto").returncode == 0
    with pytest.raises(ModelFileError, match="still kills the engine"):
        try_again(killer, paths)
    assert Trials(paths.trials).is_marked(killer)
    found = cli.run("doctor", "--model", killer, "--json").json()
    assert "error" not in found["models"][0]
    assert not Trials(paths.trials).is_marked(killer)
    assert run("--model", killer, environment={}).returncode == 0


@pytest.mark.usefixtures("crash_on")
def test_a_load_that_takes_too_long_is_cancelled(tmp_path: Path, write_model: WriteModel) -> None:
    paths = Paths(tmp_path / "home", tmp_path / "cache")
    slow, begun = tmp_path / "slow.gguf", tmp_path / "slow.gguf.begun"
    slow.write_bytes(write_model(OTHER).read_bytes())
    with Host(paths) as host:
        host.load(OPTIONS, write_model(QUICK), lambda _line: None)
        before = text_of(list(host.answer(REQUESTS[0])))

        def cancel() -> None:
            wait_until(begun.exists)
            host.cancel_load()

        thread = threading.Thread(target=cancel)
        thread.start()
        with pytest.raises(LoadCancelled):
            host.load(OPTIONS, slow, lambda _line: None)
        thread.join()
        assert not Trials(paths.trials).is_marked(slow), "it is not at fault"
        assert text_of(list(host.answer(REQUESTS[0]))) == before
        assert host.insight().pass_ms[1] > 0


def test_texts_are_made_vectors_between_answers(
    host: Host, paths: Paths, write_model: WriteModel
) -> None:
    tokens = host.tokenize("Grüße an alle " * 20, add_special=True)
    assert len(tokens) > 64, "several parts"
    answer = host.answer(REQUESTS[0])
    next(answer)
    vector = host.embed(tokens)
    assert text_of(list(answer))
    assert len(vector) == host.model.details.num_embedding
    assert sum(value * value for value in vector) == pytest.approx(1.0, abs=1e-4)
    assert host.embed(tokens) == vector
    with load(OPTIONS, write_model(QUICK), paths, lambda _line: None) as loaded:
        assert loaded.completer.embed(tokens) == vector
    assert host.embed(tokens[:5]) != vector
    with pytest.raises(UsageError, match="a text of 0 tokens"):
        host.embed(())


def test_prompts_are_told_as_they_will_be_read(
    host: Host, paths: Paths, write_model: WriteModel
) -> None:
    request = CompletionRequest((Message("user", "Hi."),))
    with load(OPTIONS, write_model(QUICK), paths, lambda _line: None) as loaded:
        assert host.render(request) == loaded.completer.render(request)
        assert host.encode(request) == loaded.completer.encode(request)
    assert len(host.encode(request)) == host.count_tokens(request.prompt)
