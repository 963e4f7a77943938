"""SIGINT and SIGTERM at every stage: prompt, one line, nothing lost, and the next run works."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from cli_support import (
    COMMAND,
    PATIENCE_S,
    Cli,
    Running,
    assert_ends,
    assert_refused,
    assert_stopped,
)

INT, TERM = signal.SIGINT, signal.SIGTERM
LOADING = ("loading ", "measuring ")
LONG_PROMPT = "The mill stood empty for many years. " * 450

both = pytest.mark.parametrize("number", [INT, TERM])


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    return Cli.of(tmp_path_factory)


@pytest.fixture(scope="module")
def first_words(cli: Cli) -> str:
    """How the slow model's endless answer begins."""
    ended = cli.run("run", *on_slow(cli), "--max-tokens", "12", "hello")
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.rstrip("\n")


def on_slow(cli: Cli) -> tuple[str | Path, ...]:
    return ("--model", cli.slow, "--threads", "1")


def answers_quickly(cli: Cli, home: Path | None = None) -> None:
    ended = cli.run("run", *cli.on_quick, "--max-tokens", "2", "hello", home=home)
    assert (ended.returncode, ended.stderr) == (0, "")


@both
def test_while_the_library_is_proved(cli: Cli, tmp_path: Path, number: signal.Signals) -> None:
    """The children die with us, and their death is not taken for the library's fault."""
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    temporary.mkdir()
    model = cli.quick
    environment = {"TMPDIR": str(temporary)}
    with cli.started("run", "--model", model, "hi", home=home, environment=environment) as running:
        child = running.wait_for_child()
        assert_stopped(running.stop(number), number, *LOADING)
        assert_ends(child)
    assert list(temporary.iterdir()) == []
    answers_quickly(cli, home)


@both
@pytest.mark.parametrize("delay", [0.0, 0.05, 0.2])
def test_while_a_model_is_loaded(
    cli: Cli, tmp_path: Path, number: signal.Signals, delay: float
) -> None:
    with cli.started("run", *on_slow(cli), LONG_PROMPT, home=tmp_path) as running:
        running.wait_for("loading slow", "stderr")
        time.sleep(delay)
        ended = running.stop(number)
    assert ended.stdout == ""
    assert_stopped(ended, number, *LOADING)


@both
def test_while_a_model_is_measured(cli: Cli, tmp_path: Path, number: signal.Signals) -> None:
    command = ("trim", cli.quick, "--for", cli.slow, "--threads", "1")
    with cli.started(*command, home=tmp_path) as running:
        running.wait_for("measuring with", "stderr")
        ended = running.stop(number)
    assert ended.stdout == ""
    assert_stopped(ended, number, *LOADING)
    answers_quickly(cli, tmp_path)


def interrupted_prefill(cli: Cli, number: signal.Signals, delay: float) -> dict[str, Any] | None:
    """What `run --json` says when it is interrupted; None if no prompt was read yet."""
    with cli.started("run", *on_slow(cli), "--json", LONG_PROMPT) as running:
        running.wait_for("loading slow", "stderr")
        time.sleep(delay)
        ended = running.stop(number)
    assert_stopped(ended, number, *LOADING)
    if not ended.stdout:
        return None
    said = json.loads(ended.stdout)
    assert isinstance(said, dict)
    return said


@both
def test_in_prefill(cli: Cli, number: signal.Signals) -> None:
    """Whether the prompt is being read at a given time nobody knows, so several are tried."""
    for delay in (1.0, 0.5, 2.0, 4.0, 0.3, 6.0):
        said = interrupted_prefill(cli, number, delay)
        if said is not None and not said["token_ids"]:
            assert said["finish_reason"] == "cancelled"
            assert said["text"] == ""
            assert said["stats"]["target_passes"] == 0
            break
    else:
        raise AssertionError("no signal came while the prompt was read")
    answers_quickly(cli)


@both
def test_in_decode_what_was_said_stays(cli: Cli, number: signal.Signals, first_words: str) -> None:
    with cli.started("run", *on_slow(cli), "hello") as running:
        running.wait_for(first_words)
        ended = running.stop(number)
    assert ended.stdout.startswith(first_words)
    assert ended.stdout.endswith("\n")
    assert_stopped(ended, number, *LOADING)
    answers_quickly(cli)


def test_in_decode_the_json_so_far_is_printed(cli: Cli, first_words: str) -> None:
    with cli.started("run", *on_slow(cli), "--json", "hello") as running:
        running.wait_for("loading slow", "stderr")
        time.sleep(3.0)
        ended = running.stop(INT)
    assert_stopped(ended, INT, *LOADING)
    if ended.stdout:  # else it was still loading
        said = json.loads(ended.stdout)
        assert said["finish_reason"] == "cancelled"
        assert said["text"].startswith(first_words) or first_words.startswith(said["text"])
        assert said["stats"]["target_passes"] + said["stats"]["accepted"] == len(said["token_ids"])


def test_an_impatient_user_changes_nothing(cli: Cli, first_words: str) -> None:
    with cli.started("run", *on_slow(cli), "hello") as running:
        running.wait_for(first_words)
        for number in (INT, INT, TERM, INT):
            running.send(number)
        ended = running.stop(INT)
    assert_stopped(ended, INT, *LOADING)


def test_waiting_for_input(cli: Cli) -> None:
    with cli.started("run", *cli.on_quick, "hello", stdin=subprocess.PIPE) as running:
        time.sleep(1.0)  # nothing tells that it reads
        assert_stopped(running.stop(INT), INT)


def test_a_signal_that_the_parent_ignores_stays_ignored(cli: Cli) -> None:
    """As in a shell's background job, or under nohup."""
    ignoring = ("bash", "-c", 'trap "" INT; exec "$0" "$@"', COMMAND)
    options = ("run", *cli.on_quick, "--max-tokens", "500", "hello")
    with cli.started(*options, command=ignoring) as running:
        running.wait_for_output()
        running.send(INT)
        ended = running.end()
    assert ended.returncode == 0
    assert ended.stdout == cli.run(*options).stdout


# Benchmarks


def suite(folder: Path, count: int, text: str = "Say something about mills.") -> Path:
    path = folder / "suite.jsonl"
    questions = (
        {"question_id": index, "category": "ab"[index % 2], "turns": [f"{index} {text}"]}
        for index in range(count)
    )
    path.write_text("".join(json.dumps(question) + "\n" for question in questions))
    return path


@both
def test_a_benchmark_keeps_what_it_measured(
    cli: Cli, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "out.json"
    options = ("--suite", suite(tmp_path, 200), "--max-tokens", "200", "--json", out)
    command, lines = ("bench", *cli.on_quick, *options), {"TERM": "dumb"}
    with cli.started(*command, environment=lines) as running:
        running.wait_for("[2/200]", "stderr")
        ended = running.stop(number)
    assert_stopped(ended, number, *LOADING, "[", "the machine ")
    report = json.loads(out.read_text())
    assert report["is_complete"] is False
    measured = {run["question"] for run in report["runs"]}
    assert 2 <= len(measured) < 200
    assert len(report["runs"]) == 2 * len(measured) == 2 * ended.stderr.count("/200]")
    assert "Cut short" in ended.stdout


def test_a_benchmark_that_measured_nothing_prints_nothing(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    options = ("--suite", suite(tmp_path, 2, LONG_PROMPT), "--json", out)
    command, lines = ("bench", *on_slow(cli), *options), {"TERM": "dumb"}
    with cli.started(*command, environment=lines) as running:
        running.wait_for("loading slow", "stderr")
        time.sleep(1.5)  # in the first prompt, or on a busy machine still loading
        ended = running.stop(INT)
    assert_stopped(ended, INT, *LOADING)
    assert ended.stdout == ""
    assert not out.exists()


# The server


def port_of(running: Running) -> int:
    """The port that a server told it listens at."""
    running.wait_for("(Ctrl-C stops it)", "stderr")
    address = running.said("stderr").split("EdgeSpec listens at http://127.0.0.1:")[1]
    return int(address.split("/")[0])


def post(port: int, body: dict[str, Any]) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    return connection


def question(text: str, **more: object) -> dict[str, Any]:
    return {"model": "slow", "messages": [{"role": "user", "content": text}], **more}


SERVING = (*LOADING, "EdgeSpec listens at ")


@both
def test_an_idle_server(cli: Cli, number: signal.Signals) -> None:
    with cli.started("serve", *cli.on_quick, "--port", "0") as running:
        port_of(running)
        ended = running.stop(number)
    assert ended.stdout == ""
    assert_stopped(ended, number, *SERVING)


@both
def test_a_server_that_answers_tells_its_client(cli: Cli, number: signal.Signals) -> None:
    with cli.started("serve", *on_slow(cli), "--port", "0", "--grace", "0") as running:
        connection = post(port_of(running), question("hello", stream=True))
        response = connection.getresponse()
        assert response.status == 200
        assert response.readline().startswith(b"data: ")
        ended = running.stop(number)
        rest = response.read().decode()
        connection.close()
    assert_stopped(ended, number, *SERVING)
    assert '"finish_reason":"length"' in rest
    assert rest.endswith("data: [DONE]\n\n")


@both
def test_a_server_that_reads_a_prompt(cli: Cli, number: signal.Signals) -> None:
    statuses: list[int] = []

    def ask() -> None:
        connection = post(port, question(LONG_PROMPT))
        statuses.append(connection.getresponse().status)
        connection.close()

    with cli.started("serve", *on_slow(cli), "--port", "0", "--grace", "0") as running:
        port = port_of(running)
        client = threading.Thread(target=ask)
        client.start()
        time.sleep(1.0)
        ended = running.stop(number)
        client.join(PATIENCE_S)
    assert_stopped(ended, number, *SERVING)
    assert statuses == [503]


def test_a_server_that_loads(cli: Cli, tmp_path: Path) -> None:
    with cli.started("serve", *on_slow(cli), "--port", "0", home=tmp_path) as running:
        running.wait_for("loading slow", "stderr")
        assert_stopped(running.stop(TERM), TERM, *SERVING)


# Other commands


@both
def test_doctor(cli: Cli, tmp_path: Path, number: signal.Signals) -> None:
    with cli.started("doctor", "--model", cli.slow, home=tmp_path) as running:
        running.wait_for_child()
        time.sleep(0.2)  # in the proof of the library
        ended = running.stop(number)
    assert ended.stdout == ""
    assert_stopped(ended, number)


# The model's file


def test_a_file_removed_in_an_answer_fails_the_next_run_only(
    cli: Cli, tmp_path: Path, first_words: str
) -> None:
    model = tmp_path / "slow.gguf"
    os.link(cli.slow, model)
    options = ("run", "--model", model, "--threads", "1", "--max-tokens", "60", "hello")
    whole = cli.run(*options)
    assert whole.returncode == 0, whole.stderr
    with cli.started(*options) as running:
        running.wait_for_output()
        model.unlink()
        ended = running.end()
    assert ended.returncode == 0
    assert ended.stdout == whole.stdout
    assert ended.stdout.startswith(first_words)
    assert_refused(cli.run(*options), 3, str(model), "there is no file")
