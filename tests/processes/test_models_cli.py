"""`edgespec pull` and `edgespec models` as they are typed: stdout is data, stderr is people."""

from __future__ import annotations

import errno
import io
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from models_support import programs
from models_support.files import tiny_gguf
from models_support.servers import FakeHub, HubEntry
from rich.console import Console
from rich.progress import Progress

from edgespec.cli.models import models, pull
from edgespec.cli.pull_progress import BarDisplay, PullDisplay
from edgespec.errors import ChecksumError, UnknownModelError, UsageError
from edgespec.models.records import write_record
from edgespec.models.registry import KNOWN_MODELS
from edgespec.reports import human_bytes

CONTENT = tiny_gguf()
REF = "hf:acme/tiny:tiny.gguf"
GROUP = click.Group("edgespec", commands=[pull, models])


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as server:
        server.files["acme/tiny/tiny.gguf"] = HubEntry(CONTENT)
        yield server


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(GROUP, arguments)


def put(path: Path, content: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def listed(*arguments: str) -> dict[str, dict[str, object]]:
    result = invoke("models", *arguments)
    assert result.exit_code == 0
    return {row["name"]: row for row in json.loads(result.stdout)["models"]}


def test_the_list_shows_known_models_that_are_not_there(home: Path) -> None:
    result = invoke("models")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert re.split(r"\s{2,}", lines[0].strip()) == ["NAME", "SIZE", "STATE", "LICENCE"]
    assert len(lines) == 1 + len(KNOWN_MODELS)
    for name, line in zip(KNOWN_MODELS, lines[1:], strict=True):
        assert line.startswith(name)
        assert "not pulled" in line
    assert result.stderr == ""
    assert not home.exists()


def test_the_list_shows_what_is_there_first(home: Path) -> None:
    own = put(home / "models" / "own.gguf")
    known = put(home / "models" / "smollm2-135m.gguf")
    write_record(known, KNOWN_MODELS["smollm2-135m"].sha256, "packages")
    lines = invoke("models", "list").stdout.splitlines()
    assert re.fullmatch(r"smollm2-135m\s+[\d.]+ kB\s+verified\s+Apache-2.0\s*", lines[1])
    assert lines[2].startswith(str(own))
    assert "not verified" in lines[2]
    assert len(lines) == 2 + len(KNOWN_MODELS)


def test_the_list_as_json_says_all_of_it(home: Path) -> None:
    path = put(home / "models" / "smollm2-135m.gguf")
    write_record(path, "ab" * 32, "packages")
    for arguments in (("--json",), ("list", "--json")):
        rows = listed(*arguments)
        assert rows["smollm2-135m"] == {
            "name": "smollm2-135m",
            "title": "SmolLM2-135M-Instruct Q4_1",
            "on_disk": True,
            "path": str(path),
            "size_bytes": len(CONTENT),
            "verified": True,
            "sha256": "ab" * 32,
            "source": "packages",
            "licence": "Apache-2.0",
        }
        assert rows["gemma-3-270m"]["on_disk"] is False
        assert rows["gemma-3-270m"]["path"] is None
        assert set(rows) == set(KNOWN_MODELS)


def test_remove_says_what_was_freed(home: Path) -> None:
    path = put(home / "models" / "own.gguf")
    result = invoke("models", "remove", "own.gguf")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert result.stderr == f"removed own.gguf: {human_bytes(len(CONTENT))} freed\n"
    assert not path.exists()
    again = invoke("models", "remove", "own.gguf")
    assert isinstance(again.exception, UnknownModelError)


def test_verify_prints_checksums_as_sha256sum_does(home: Path) -> None:
    put(home / "models" / "one.gguf")
    put(home / "models" / "two.gguf", CONTENT + b"2")
    result = invoke("models", "verify")
    assert result.exit_code == 0
    checked = subprocess.run(
        ["sha256sum", "-c", "-"], input=result.stdout, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.count(": OK") == 2
    assert all(row["verified"] for row in listed("--json").values() if row["on_disk"])


def test_verify_goes_through_all_before_it_fails(home: Path) -> None:
    for name in ("one", "two", "three"):
        put(home / "models" / f"{name}.gguf")
    invoke("models", "verify")
    put(home / "models" / "one.gguf", b"1")
    one_wrong = invoke("models", "verify")
    assert isinstance(one_wrong.exception, ChecksumError)
    assert str(home / "models" / "one.gguf") in str(one_wrong.exception)
    assert one_wrong.stdout.count("\n") == 2
    invoke("models", "verify")
    put(home / "models" / "one.gguf", b"0")
    put(home / "models" / "two.gguf", b"2")
    two_wrong = invoke("models", "verify")
    assert isinstance(two_wrong.exception, ChecksumError)
    assert "2 of 3 models are wrong" in str(two_wrong.exception)
    assert two_wrong.stdout.count("\n") == 1


def test_verify_of_an_unknown_name(home: Path) -> None:
    result = invoke("models", "verify", "smollm2-135m")
    assert isinstance(result.exception, UnknownModelError)
    assert "is not in the model folder" in str(result.exception)


def test_pull_prints_the_path_on_stdout_and_all_else_on_stderr(home: Path, hub: FakeHub) -> None:
    environment = programs.clean_environment(home, HF_ENDPOINT=hub.url)
    ended = programs.run(["cli", "pull", REF], environment)
    path = home / "models" / "hf" / "acme" / "tiny" / "tiny.gguf"
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == f"{path}\n"
    assert ended.stderr.splitlines() == [
        f"{REF}: reading from the Hub, {human_bytes(len(CONTENT))}",
        f"{REF}: from the Hub, {human_bytes(len(CONTENT))}",
    ]
    assert path.read_bytes() == CONTENT
    again = programs.run(["cli", "pull", REF, str(path)], environment)
    assert again.stdout == f"{path}\n" * 2
    assert again.stderr.count("already on disk") == 2


def test_pull_without_network_ends_with_one_line(home: Path) -> None:
    environment = programs.clean_environment(home, HF_ENDPOINT=programs.NO_HUB)
    ended = programs.run(["cli", "pull", REF], environment)
    assert ended.returncode == 7
    assert ended.stdout == ""
    assert ended.stderr.startswith("edgespec: the Hub cannot be reached")
    assert ended.stderr.count("\n") == 1


def test_the_hub_can_be_switched_off_for_the_users_other_way(home: Path) -> None:
    """HF_HUB_OFFLINE is the library's own switch; a model without packages then cannot come."""
    environment = programs.clean_environment(home, HF_HUB_OFFLINE="1")
    ended = programs.run(["cli", "pull", REF], environment)
    assert ended.returncode == 7
    assert ended.stderr == "edgespec: the Hub is switched off by HF_HUB_OFFLINE; unset it\n"


def test_every_name_is_checked_before_the_first_byte(home: Path) -> None:
    put(home / "own.gguf")
    result = invoke("pull", str(home / "own.gguf"), "smolm2-135m")
    assert isinstance(result.exception, UnknownModelError)
    assert "did you mean smollm2-135m?" in str(result.exception)
    assert result.stdout == ""


def test_a_script_must_accept_terms_by_an_option(home: Path) -> None:
    result = invoke("pull", "gemma-3-270m")
    assert isinstance(result.exception, UsageError)
    assert "pull with --accept-terms" in str(result.exception)
    assert "Gemma Terms of Use" in result.stderr
    assert not list(home.rglob("*.part"))


def test_terms_are_asked_about_on_a_terminal(home: Path) -> None:
    """Declined, so nothing is fetched: neither the Hub nor an index is there to be asked."""
    shown, status = on_a_terminal(
        ["cli", "pull", "gemma-3-270m"],
        programs.clean_environment(home, HF_ENDPOINT=programs.NO_HUB, PIP_NO_INDEX="1"),
        answer=b"n\n",
    )
    assert "https://ai.google.dev/gemma/terms" in shown
    assert "Do you accept them? [y/N]" in shown
    assert "was not pulled because its terms were not accepted" in shown
    assert status == UsageError.exit_code


def test_a_terminal_shows_a_bar(home: Path, hub: FakeHub) -> None:
    shown, status = on_a_terminal(
        ["cli", "pull", REF], programs.clean_environment(home, HF_ENDPOINT=hub.url)
    )
    assert status == 0
    assert "(the Hub)" in shown
    assert "━" in shown
    assert str(home / "models" / "hf" / "acme" / "tiny" / "tiny.gguf") in shown.replace("\r\n", "")


def test_a_bar_counts_only_new_bytes_as_speed() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    with Progress(console=console, auto_refresh=False) as progress:
        display = BarDisplay(progress)
        display.at(5)  # before anything began there is nothing to move
        with display.model("tiny"):
            display.begin("the Hub", 1000)
            display.at(600)
            (task,) = progress.tasks
            assert task.completed == 600
            assert task.speed is None
            display.at(700)
            assert task.completed == 700
            display.begin("the package index", 1000)
            (task,) = progress.tasks
            assert task.completed == 0
            assert task.description == "tiny (the package index)"
            display.say("[red]taken as it is[/red]")
        assert task.stop_time is not None
    assert "[red]taken as it is[/red]" in screen.getvalue()


def test_plain_lines_come_every_few_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    display = PullDisplay(clock=lambda: now[0])
    with display.model("tiny"):
        display.begin("the Hub", 2000)
        for second in range(11):
            now[0] = float(second)
            display.at(second * 200)
        display.begin("the Hub", None)
        now[0] = 60.0
        display.at(5_000_000)
    with display.paused():
        display.print("data")
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [
        "tiny: reading from the Hub, 2.00 kB",
        "tiny: 1.00 kB (50 %)",
        "tiny: 2.00 kB (100 %)",
        "tiny: reading from the Hub, unknown size",
        "tiny: 5.00 MB",
    ]
    assert captured.out == "data\n"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.00 kB"),
        (98_362_432, "98.4 MB"),
        (1_117_320_768, "1.12 GB"),
        (70_000_000_000, "70.0 GB"),
        (2_500_000_000_000, "2.50 TB"),
    ],
)
def test_bytes_are_said_in_decimal_units(count: int, text: str) -> None:
    assert human_bytes(count) == text


def on_a_terminal(
    arguments: list[str], environment: dict[str, str], answer: bytes = b""
) -> tuple[str, int]:
    """Run the driver on a pseudo-terminal; returns what it showed and its exit status."""
    ours, theirs = pty.openpty()
    os.write(ours, answer)
    process = subprocess.Popen(
        [sys.executable, str(programs.DRIVER), *arguments],
        env=environment | {"TERM": "xterm", "COLUMNS": "200", "NO_COLOR": "1"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    try:
        while data := os.read(ours, 65536):
            shown += data
    except OSError as error:  # the terminal's other side is closed
        if error.errno != errno.EIO:
            raise
    finally:
        os.close(ours)
    return shown.decode(errors="replace"), process.wait(timeout=30)
