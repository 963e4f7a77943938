"""`edgespec serve` as another program, and servers under load, as seen from outside."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_support import Cli, Running, assert_refused, assert_stopped
from fake_peer import FakePeer, fake_peer

from edgespec import errors
from edgespec.bench.peer_process import Served
from edgespec.bench.peers import open_peer, url_spec
from edgespec.types import Message, SamplingParams

NETWORK, USAGE = errors.NetworkError.exit_code, errors.UsageError.exit_code
ASKED = "Write about the mill."


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    return Cli.of(tmp_path_factory)


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("load") / "suite.jsonl"
    lines = [
        {"question_id": number, "category": "any", "turns": [f"{ASKED} {number}"]}
        for number in range(30)
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


@pytest.fixture(scope="module")
def served(cli: Cli) -> Iterator[str]:
    """The URL of a server of the quick model."""
    with cli.started("serve", *cli.on_quick, "--port", "0", "--no-learn") as running:
        yield url_of(running)
        running.stop(signal.SIGTERM)


def url_of(running: Running) -> str:
    running.wait_for("(Ctrl-C stops it)", "stderr")
    return running.said("stderr").split("listens at ", 1)[1].split()[0]


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_a_server_asked_as_another_program_has_the_bytes_of_the_engine(
    cli: Cli, served: str, temperature: float
) -> None:
    peer = open_peer(url_spec(f"ours={served}"), Served(Path(), 0, 1))
    sampling = SamplingParams(temperature, top_k=40, top_p=0.95, min_p=0.05, seed=7)
    answer = peer.answer((Message("user", ASKED),), sampling, 40)
    options = ("--temperature", str(temperature), "--seed", "7", "--max-tokens", "40", "--no-learn")
    alone = cli.answer(*options, ASKED)
    assert answer.text == alone["text"]
    assert answer.num_tokens == len(alone["token_ids"]) == 40
    assert answer.proposed
    assert answer.prompt_ms is not None and answer.decode_ms < answer.request_ms


def test_servers_under_load(cli: Cli, served: str, suite: Path, tmp_path: Path) -> None:
    out = tmp_path / "load.json"
    with fake_peer(FakePeer(status=401)) as locked:
        options = ("--serve", f"ours={served}", "--serve", f"again={served}")
        more = ("--peer", f"locked={locked.url}", "--suite", suite, "--max-tokens", "8")
        ended = cli.run(
            "bench", *options, *more, "--clients", "1,2", "--rounds", "9", "--json", out
        )
    assert ended.returncode == 0, ended.stderr
    report = json.loads(out.read_text())
    assert report["is_complete"] is True
    assert len(report["blocks"]) == 3 * 2 * 2, "30 questions are enough for three rounds"
    assert "30 questions are enough for 3 rounds" in ended.stderr
    answers = [answer for block in report["blocks"] for answer in block["answers"]]
    assert {answer["num_tokens"] for answer in answers} == {8}
    [line] = report["left_out"]
    assert line.startswith("locked answers with status 401") and "EDGESPEC_PEER_KEY" in line
    rows = [line.split() for line in ended.stdout.splitlines()]
    assert [row[:2] for row in rows if row[:1] in (["1"], ["2"])] == [
        ["1", "ours"],
        ["1", "again"],
        ["2", "ours"],
        ["2", "again"],
    ]
    assert f"Left out: {line}" in ended.stdout


def test_ctrl_c_keeps_what_is_finished(cli: Cli, served: str, suite: Path, tmp_path: Path) -> None:
    out = tmp_path / "load.json"
    options = ("--serve", f"ours={served}", "--suite", suite, "--clients", "1", "--rounds", "7")
    with cli.started("bench", *options, "--max-tokens", "400", "--json", out) as running:
        running.wait_for("round 1: ours, 1 client", "stderr")
        ended = running.stop(signal.SIGINT)
    assert_stopped(ended, signal.SIGINT, "round ")
    report = json.loads(out.read_text())
    assert report["blocks"] and report["is_complete"] is False
    assert "Cut short" in ended.stdout


def test_what_cannot_be_measured_is_one_line(cli: Cli, suite: Path, tmp_path: Path) -> None:
    with fake_peer(FakePeer(status=503)) as loading:
        url = loading.url
        ended = cli.run("bench", "--serve", url, "--suite", suite, "--clients", "1")
        assert_refused(ended, NETWORK, "answers with status 503")
    ended = cli.run("bench", "--serve", url, "--suite", suite, "--clients", "1")
    assert_refused(ended, NETWORK, "cannot be reached")
    refused = {
        ("--serve", "nowhere"): "NAME=",
        ("--serve", url, "--clients", "0"): "--clients 0",
        ("--serve", url, "--clients", "16"): "too few",
        ("--serve", url, "--rounds", "0"): "--rounds",
        ("--serve", f"a={url}", "--serve", f"a={url}", "--clients", "1"): "same name",
    }
    for options, words in refused.items():
        assert_refused(cli.run("bench", *options, "--suite", suite), USAGE, words)
    lost = ("--json", tmp_path / "no" / "out.json")
    ended = cli.run("bench", "--serve", url, "--suite", suite, "--clients", "1", *lost)
    assert_refused(ended, errors.StorageError.exit_code, "cannot write")
