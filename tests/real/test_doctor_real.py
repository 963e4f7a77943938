"""`edgespec doctor` on the default pair, in a home of its own that links to the pulled files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgespec.llama import library
from edgespec.machine.facts import MAX_SPREAD
from edgespec.machine.identity import this_machine
from edgespec.machine.probe import CONTEXTS
from edgespec.models.registry import DEFAULT_DRAFTER, DEFAULT_TARGET
from edgespec.runtime.running import Running

BUSY = "the machine was too busy to be timed; try again when idle"


@pytest.fixture(scope="module")
def home(target_path: Path, drafter_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    (folder / "models").mkdir()
    for name, path in ((DEFAULT_TARGET, target_path), (DEFAULT_DRAFTER, drafter_path)):
        (folder / "models" / f"{name}.gguf").symlink_to(path)
    return folder


def doctor(home: Path, *arguments: str) -> str:
    """What it prints; it must end well and say nothing on stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "edgespec", "doctor", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"EDGESPEC_HOME": str(home)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture(scope="module")
def found(home: Path) -> dict[str, Any]:
    """The first examination, which measures everything."""
    examination: dict[str, Any] = json.loads(doctor(home, "--json"))
    return examination


def test_machine_library_and_database_are_described(home: Path, found: dict[str, Any]) -> None:
    machine = this_machine()
    assert found["machine"].pop("read_bandwidth_bytes_per_second") > 1e7
    assert found["machine"] == {
        "cpu": machine.cpu,
        "system": machine.system,
        "threads": machine.num_threads,
        "memory_bytes": machine.memory_bytes,
    }
    assert found["library"]["version"] == library.binding_version()
    assert found["library"]["build"] == library.build_id()
    assert tuple(found["library"]["features"]) == library.build_features()
    assert found["library"]["extra_buffers"] == (not found["library"]["findings"])
    assert found["database"]["path"] == str(home / "edgespec.db")
    assert found["database"]["bytes"] > 0
    assert found["database"]["integrity"] == "ok"


def test_both_models_are_examined(
    found: dict[str, Any], target_path: Path, drafter_path: Path
) -> None:
    by_name = {model["name"]: model for model in found["models"]}
    assert by_name.keys() == {DEFAULT_TARGET, DEFAULT_DRAFTER}
    for name, path in ((DEFAULT_TARGET, target_path), (DEFAULT_DRAFTER, drafter_path)):
        model = by_name[name]
        assert model["bytes"] == path.stat().st_size
        assert model["plain_token_ms"] > 0
        assert model["roofline_share"] > 0
        assert model["spread"] >= 1
        assert model["pass_ms"].keys() == set(map(str, CONTEXTS))
        for costs in model["pass_ms"].values():
            assert "1" in costs
            assert min(costs.values()) > 0
        check_invariance(model["invariance"])
    plain_ms = {name: model["plain_token_ms"] for name, model in by_name.items()}
    assert plain_ms[DEFAULT_DRAFTER] < plain_ms[DEFAULT_TARGET]  # it has a tenth of the bytes


def check_invariance(invariance: dict[str, Any]) -> None:
    """The chosen setting is the last of those tried, and the best of them."""
    chosen = invariance["tried"][-1]
    assert invariance["kv_cache"] == chosen["kv_cache"]
    assert chosen["rows"] == max(tried["rows"] for tried in invariance["tried"])
    if invariance["exactness"] == "identical":
        assert invariance["rows"] == chosen["rows"] > 1
    else:
        assert invariance["exactness"] == "near-ties"
        assert invariance["margin"] > 0


def test_the_promise_is_the_one_that_the_app_makes(found: dict[str, Any], real: Running) -> None:
    """Times differ from run to run; what agrees bit by bit does not."""
    (model,) = (model for model in found["models"] if model["name"] == DEFAULT_TARGET)
    told = model["invariance"]
    facts = real.facts
    assert told["exactness"] == facts.exactness == real.completer.model.exactness
    assert (told["kv_cache"], told["rows"]) == (facts.setting.name, facts.max_rows)
    assert told["margin"] == facts.margin
    tried = [(row["kv_cache"], row["rows"], row["margin"]) for row in told["tried"]]
    assert tried == [row[:3] for row in facts.tried]


def test_every_problem_is_one_that_is_there(found: dict[str, Any]) -> None:
    expected = list(found["library"]["findings"])
    for model in found["models"]:
        if model["spread"] > MAX_SPREAD:
            expected.append(f"{model['name']}: {BUSY}")
        if model["invariance"]["exactness"] != "identical":
            margin = f"{model['invariance']['margin']:.2g}"
            (problem,) = (line for line in found["problems"] if margin in line)
            expected.append(problem)
    assert sorted(found["problems"]) == sorted(expected)


def test_plain_words_say_the_same_and_measure_nothing_twice(
    home: Path, found: dict[str, Any]
) -> None:
    text = doctor(home)
    lines = text.splitlines()
    assert lines[0].startswith(f"Machine    {this_machine().cpu}")
    assert any(library.binding_version() in line for line in lines)
    assert any(line.startswith("Database   ") and "integrity ok" in line for line in lines)
    assert ("No problems found." in lines) != ("Problems" in lines)
    for model in found["models"]:
        start = next(
            i for i, line in enumerate(lines) if line.startswith(f"Model      {model['name']}")
        )
        paragraph = "\n".join(lines[start : start + 6])
        if model["spread"] <= MAX_SPREAD:
            assert f"one plain token {model['plain_token_ms']:.1f} ms" in paragraph
        if model["invariance"]["exactness"] == "identical":
            assert "the same bytes with and without speculation" in paragraph
            assert f"up to {model['invariance']['rows']} rows" in paragraph
        else:
            assert "equal up to near-ties" in paragraph
        assert f"{model['invariance']['kv_cache']} KV cache" in paragraph


def test_a_model_cut_short_is_a_problem_and_no_failure(
    home: Path, drafter_path: Path, tmp_path: Path
) -> None:
    path = tmp_path / "cut.gguf"
    with drafter_path.open("rb") as whole:
        path.write_bytes(whole.read(50_000_000))
    cut = json.loads(doctor(home, "--model", str(path), "--json"))
    (model,) = cut["models"]
    assert "cut.gguf" in model["error"]
    assert model["error"] in cut["problems"]
    assert "invariance" not in model
