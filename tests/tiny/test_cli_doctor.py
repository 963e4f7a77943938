"""`edgespec doctor` on homes with sound, damaged and no models, as JSON and in plain words."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest
from cli_support import FLAT_COSTS, Cli, Ended, remember
from tiny_models import TinySpec, write_tiny_model

from edgespec.machine.identity import this_machine


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    return Cli.of(tmp_path_factory)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a sound model and one that was cut off."""
    home = tmp_path_factory.mktemp("doctor")
    models = home / "models"
    models.mkdir()
    good = write_tiny_model(models / "good.gguf", TinySpec(width=64, ffn_width=128))
    (models / "cut.gguf").write_bytes(good.read_bytes()[:-1000])
    return home


@pytest.fixture(scope="module")
def found(cli: Cli, home: Path) -> dict[str, Any]:
    return cli.run("doctor", "--json", home=home).json()


@pytest.fixture(scope="module")
def words(cli: Cli, home: Path, found: dict[str, Any]) -> str:
    """What the same home gives without --json, afterwards."""
    ended = cli.run("doctor", home=home)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


def model(found: dict[str, Any], name: str) -> dict[str, Any]:
    [about] = [about for about in found["models"] if about["path"].endswith(f"{name}.gguf")]
    assert isinstance(about, dict)
    return about


def test_the_subjects_of_an_examination(found: dict[str, Any]) -> None:
    assert set(found) == {"machine", "library", "database", "models", "problems"}
    machine = found["machine"]
    assert machine["cpu"]
    assert machine["threads"] >= 1
    assert machine["memory_bytes"] > 1e8
    assert machine["read_bandwidth_bytes_per_second"] > 1e8
    library = found["library"]
    assert re.match(r"\d+\.\d+\.\d+ \(llama\.cpp ", library["version"])
    assert library["features"]
    assert library["compiler"]
    assert isinstance(library["extra_buffers"], bool)
    assert bool(library["findings"]) is not library["extra_buffers"]


def test_the_database_is_whole(found: dict[str, Any], home: Path) -> None:
    database = found["database"]
    assert database["path"] == str(home / "edgespec.db")
    assert database["integrity"] == "ok"
    assert database["bytes"] > 0
    assert database["schema"] >= 1


def test_a_sound_model_is_measured(found: dict[str, Any], home: Path) -> None:
    about = model(found, "good")
    assert about["path"] == str(home / "models" / "good.gguf")
    assert about["bytes"] == (home / "models" / "good.gguf").stat().st_size
    invariance = about["invariance"]
    assert invariance["exactness"] in ("identical", "near-ties")
    assert invariance["rows"] >= 1
    assert invariance["tried"][-1]["kv_cache"] == invariance["kv_cache"]
    # The probe stops at the first setting that is invariant to all rows.
    assert all(tried["rows"] < 16 for tried in invariance["tried"][:-1])
    assert about["plain_token_ms"] > 0
    assert about["roofline_share"] > 0
    short, long = sorted(about["pass_ms"], key=int)
    assert int(short) < 512 < int(long)
    for costs in about["pass_ms"].values():
        assert all(ms > 0 for ms in costs.values())
        assert "1" in costs
        # Sixteen rows never cost more than two passes over eight.
        assert costs["16"] <= 2 * costs["8"] + 0.02


def test_a_damaged_model_is_a_problem_and_stops_nothing(found: dict[str, Any]) -> None:
    about = model(found, "cut")
    assert "truncated" in about["error"]
    assert "pull it again" in about["error"]
    assert "invariance" not in about
    assert about["error"] in found["problems"]
    assert len(found["models"]) == 2


def test_plain_words_tell_the_same(found: dict[str, Any], words: str) -> None:
    assert found["machine"]["cpu"] in words
    assert f"{found['machine']['threads']} threads" in words
    assert found["library"]["version"] in words
    assert all(feature in words for feature in found["library"]["features"])
    assert f"{found['database']['path']}" in words
    assert "integrity ok" in words
    for about in found["models"]:
        assert f"{about['name']} (" in words
        assert about["path"] in words
    assert model(found, "cut")["error"] in words
    good = model(found, "good")["invariance"]
    promise = {"identical": "the same bytes", "near-ties": "equal up to near-ties"}
    assert promise[good["exactness"]] in words
    assert re.search(r"one plain token [\d.]+ ms, \d+% of the memory's speed", words)
    problems = words[words.index("\nProblems\n") :]
    assert "truncated" in problems
    assert "No problems" not in words


def test_what_was_measured_is_remembered_until_asked_anew(
    cli: Cli, tmp_path: Path, home: Path
) -> None:
    path = home / "models" / "good.gguf"
    remember(path, tmp_path, this_machine())
    options = ("doctor", "--json", "--model", path)
    [about] = cli.run(*options, home=tmp_path).json()["models"]
    flat = {str(rows): ms for rows, ms in FLAT_COSTS.items()}
    assert list(about["pass_ms"].values()) == [flat, flat]
    assert about["plain_token_ms"] == FLAT_COSTS[1]
    [anew] = cli.run(*options, "--measure", home=tmp_path).json()["models"]
    assert list(anew["pass_ms"].values()) != [flat, flat]
    assert anew["measured_in_s"] != about["measured_in_s"]


def test_a_home_without_models(cli: Cli, tmp_path: Path) -> None:
    found = cli.run("doctor", "--json", home=tmp_path).json()
    assert found["models"] == []
    assert found["problems"] == ["there is no model on disk: run `edgespec pull`"]
    words = cli.run("doctor", home=tmp_path).stdout
    assert "none on disk" in words
    assert "run `edgespec pull`" in words


def test_a_model_that_is_not_on_disk(cli: Cli, tmp_path: Path) -> None:
    ended = cli.run("doctor", "--json", "--model", "smollm2-135m", home=tmp_path)
    found = ended.json()
    assert found["models"] == []
    assert found["problems"] == ["smollm2-135m is not on disk: run `edgespec pull smollm2-135m`"]


def refused(ended: Ended) -> str:
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1
    return ended.stderr


def test_names_that_name_nothing(cli: Cli) -> None:
    ended = cli.run("doctor", "--model", "no-such-model")
    assert ended.returncode == 10
    assert "no-such-model" in refused(ended)
    ended = cli.run("doctor", "--model", " ")
    assert ended.returncode == 2
    assert "empty name" in refused(ended)


def test_a_garbage_database_is_told(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "edgespec.db").write_bytes(random.Random(0).randbytes(3000))
    found = cli.run("doctor", "--json", home=tmp_path).json()
    assert any("a new one was begun" in problem for problem in found["problems"])
    assert found["database"]["integrity"] == "ok"


@pytest.mark.parametrize("options", [(), ("--measure",)])
def test_a_home_that_nobody_can_write_to(cli: Cli, options: tuple[str, ...]) -> None:
    found = cli.run("doctor", "--json", *options, home=Path("/proc/edgespec")).json()
    assert found["database"]["path"] == "in memory"
    assert any("nothing is remembered" in problem for problem in found["problems"])
