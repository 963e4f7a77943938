"""`edgespec serve`: several clients, several models, keys, an idle limit, as seen from outside."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cli_support import Cli, Running, processes
from server_support import wait_until

KEY = "a-secret-key"
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    return Cli.of(tmp_path_factory)


def url_of(running: Running) -> str:
    running.wait_for("(Ctrl-C stops it)", "stderr")
    return running.said("stderr").split("listens at ", 1)[1].split()[0]


def asked(url: str, body: dict[str, Any] | None = None, key: str = KEY) -> tuple[int, Any]:
    """Status and content of a GET, or of a POST of `body`."""
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, data, {**JSON, "x-api-key": key})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def num_children(running: Running) -> int:
    return sum(parent == running.process.pid for _, parent in processes())


def test_models_come_and_go_by_name(cli: Cli, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"{KEY}\n")
    arguments = ("--model", cli.quick, "--model", cli.slow, "--threads", "1", "--port", "0")
    options = ("--keep-alive", "1s", "--api-key-file", keys, "--ctx", "512", "--log-prompts")
    with cli.started("serve", *arguments, *options) as running:
        url = url_of(running)
        assert asked(f"{url}/models", key="wrong")[0] == 401
        listed = asked(f"{url}/models")[1]["data"]
        assert [each["id"] for each in listed] == ["quick", "slow"]
        question = {"prompt": "The mill", "max_tokens": 2, "temperature": 0}
        said = {}
        for name in ("quick", "slow"):
            status, answer = asked(f"{url}/completions", {**question, "model": name})
            assert (status, answer["model"]) == (200, name)
            said[name] = answer["choices"][0]["text"]
        assert asked(f"{url}/completions", {**question, "model": str(cli.quick)})[0] == 404
        wait_until(lambda: num_children(running) == 0, timeout_s=60.0)
        _, again = asked(f"{url}/completions", {**question, "model": "slow"})
        assert again["choices"][0]["text"] == said["slow"]
        ended = running.stop(signal.SIGTERM)
    assert ended.stderr.count('asked: "The mill"') == 3


def questions() -> list[dict[str, Any]]:
    """Prompts of many lengths; together they need more cells than there are."""
    return [
        {
            "prompt": "The mill stood empty for many years. " * (1 + number % 7),
            "max_tokens": 5 + 23 * (number % 9),
            "temperature": 0.8 * (number % 2),
            "seed": number,
        }
        for number in range(24)
    ]


def leave(url: str, body: dict[str, Any]) -> None:
    """Ask, and be gone with the first word."""
    data = json.dumps({**body, "stream": True}).encode()
    with contextlib.suppress(urllib.error.HTTPError):
        urllib.request.urlopen(urllib.request.Request(url, data, JSON), timeout=60).close()


def test_whoever_asks_beside_gets_what_it_would_get_alone(cli: Cli, tmp_path: Path) -> None:
    """Some leave; no slot is stuck, no answer is another one's.

    In a home where the keys of the cache are BF16: with F16 a prompt of which more is known is read
    otherwise, alone as well.
    """
    arguments = ("serve", *cli.on_quick, "--port", "0", "--ctx", "512")
    with cli.started(*arguments, home=tmp_path) as running:
        url = f"{url_of(running)}/completions"

        def text(body: dict[str, Any]) -> str:
            status, answer = asked(url, body)
            assert status == 200, answer
            return str(answer["choices"][0]["text"])

        alone = [text(body) for body in questions()]
        shuffled = [*enumerate(questions())] * 3
        random.Random(4).shuffle(shuffled)
        with ThreadPoolExecutor(12) as pool:
            gone = [pool.submit(leave, url, body) for body in questions()]
            together = pool.map(lambda each: (each[0], text(each[1])), shuffled)
            for number, said in together:
                assert said == alone[number], questions()[number]
            for each in gone:
                each.result()
        health = asked(f"{url_of(running).removesuffix('/v1')}/health")[1]
        assert (health["answering"], health["waiting"]) == (False, 0)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--host", "0.0.0.0"), "--api-key-file"),
        (("--api-key-file", "/nowhere"), "/nowhere"),
        (("--cors-origin", "*"), "origin"),
        (("--slots", "0"), "0 slots"),
        (("--keep-alive", "soon"), "soon"),
        (("--memory", "much"), "much"),
    ],
)
def test_options_that_make_no_sense(cli: Cli, arguments: tuple[str, ...], word: str) -> None:
    ended = cli.run("serve", *cli.on_quick, "--port", "0", *arguments)
    assert ended.returncode == 2
    assert word in ended.stderr and "Traceback" not in ended.stderr
