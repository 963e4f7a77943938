"""The scripts behind the figures on pairs of models, at a small size."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import measure_first_guess
import measure_pairs
import pytest
from cli_support import QUICK
from measure_first_guess import Variant
from measure_pairs import GREEDY, WARM, Bench, PairResult, ask, check_pair

from edgespec.bench.suite import Question
from edgespec.cache.database import Database
from edgespec.cache.facts import Facts
from edgespec.engine.completer import EngineCompleter
from edgespec.llama.tiny import TinySpec, write_tiny_model
from edgespec.machine.identity import this_machine
from edgespec.types import Completion

STRANGER = TinySpec(
    architecture="gemma3", vocabulary="spm", num_layers=1, width=64, ffn_width=128, repetitive=True
)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fastest on a busy machine."""
    machine = dataclasses.replace(this_machine(), num_threads=1)
    for module in (measure_pairs, measure_first_guess):
        monkeypatch.setattr(module, "this_machine", lambda: machine)


@pytest.fixture
def models(tmp_path: Path) -> tuple[Path, Path]:
    return (
        write_tiny_model(tmp_path / "quick.gguf", QUICK),
        write_tiny_model(tmp_path / "stranger.gguf", STRANGER),
    )


@pytest.fixture
def bench(models: tuple[Path, Path], database: Database) -> Iterator[Bench]:
    with contextlib.ExitStack() as cleanup:
        yield Bench(models[0], Facts(database), cleanup)


def test_a_pair_really_drafts_and_is_equal(bench: Bench, models: tuple[Path, Path]) -> None:
    prompts = measure_pairs.PROMPTS[:3]
    result = check_pair(bench, models[0], prompts, 24)
    assert (result.num_answers, result.num_equal, result.differing) == (6, 6, [])
    assert (result.target, result.drafter, result.exactness) == ("quick", "quick", "identical")
    assert result.accepted["model"] > 20, "it is the target itself"
    stranger = check_pair(bench, models[1], prompts, 24)
    assert stranger.num_equal == 6
    assert stranger.proposed["model"] > 20


def test_what_differs_is_told(bench: Bench) -> None:
    completer: EngineCompleter = bench.completer([], [])
    one = ask(completer, "Tell me a story.", GREEDY, 8, speculate=False)
    result = PairResult("a", "b", "identical")
    result.add("first", one, one)
    others: list[Callable[[Completion], Completion]] = [
        lambda it: dataclasses.replace(it, token_ids=(*it.token_ids[:-1], 1)),
        lambda it: dataclasses.replace(it, text=it.text + " "),
        lambda it: dataclasses.replace(it, finish_reason="cancelled"),
    ]
    for number, change in enumerate(others):
        result.add(str(number), one, change(one))
    assert (result.num_answers, result.num_equal) == (4, 1)
    assert result.differing == ["0", "1", "2"]
    assert "1 of 4 equal" in str(result)


def test_the_temperatures_differ(tmp_path: Path, database: Database) -> None:
    path = write_tiny_model(tmp_path / "wavering.gguf", TinySpec())
    with contextlib.ExitStack() as cleanup:
        completer = Bench(path, Facts(database), cleanup).completer([], [])
        answers = [
            ask(completer, "Tell me a story.", sampling, 24, speculate=False).token_ids
            for sampling in (GREEDY, WARM)
        ]
    assert answers[0] != answers[1]


def test_a_run_is_continued(
    models: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path))
    monkeypatch.setattr(measure_pairs, "check_pair", _quick_check)
    results = tmp_path / "pairs.jsonl"
    measure_pairs.main(results, 0.0, models)
    assert capsys.readouterr().out.count("\n") == 1, "no time for a second pair"
    measure_pairs.main(results, 5.0, models)
    assert capsys.readouterr().out.count("\n") == 3
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    pairs = [(line["target"], line["drafter"]) for line in lines]
    names = [path.stem for path in models]
    assert pairs == [(target, drafter) for target in names for drafter in names]
    assert all(line["num_equal"] == line["num_answers"] == 2 for line in lines)
    measure_pairs.main(results, 5.0, models)
    assert capsys.readouterr().out == ""


def _quick_check(bench: Bench, drafter: Path) -> PairResult:
    return check_pair(bench, drafter, measure_pairs.PROMPTS[:1], 8)


def test_first_guesses_are_counted_at_every_token(
    models: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path))
    monkeypatch.setattr(measure_first_guess, "NUM_TOKENS", 16)
    suite, results = tmp_path / "suite.jsonl", tmp_path / "first.jsonl"
    questions = [("a", "Tell me."), ("a", "And then?"), ("b", "Why is that?")]
    suite.write_text(
        "".join(
            json.dumps({"question_id": number, "category": category, "turns": [turn]}) + "\n"
            for number, (category, turn) in enumerate(questions)
        )
    )
    variants = [Variant.parsed(f"{path},whole") for path in models]
    variants.append(Variant.parsed(f"{models[0]},whole,window=8,plain"))
    arguments = (suite, results, 5.0, models[0], variants)
    measure_first_guess.main(*arguments)
    told = capsys.readouterr().out
    # The target itself is right wherever it is asked: at each token but the first and the last.
    assert re.search(r"^\| category \| places \| quick,whole \| quick,whole,window=8,plain", told)
    cell = r"[01]\.\d\d\d at [01]\.\d\d"
    assert re.search(rf"^\| overall \| 42 \| 1\.000 at 1\.00 \| {cell} \| {cell} \|$", told, re.M)
    assert re.search(r"^\| a \| 28 \| 1\.000", told, re.M)
    shares = re.findall(r"(\d\.\d+) at", told.splitlines()[-1])
    assert max(map(float, shares[1:])) < 1, "it reads too little, or is another model"
    lines = results.read_text()
    measure_first_guess.main(*arguments)
    assert capsys.readouterr().out == told
    assert results.read_text() == lines, "nothing was asked again"


def test_a_drafter_is_told_with_its_changes() -> None:
    it = Variant.parsed("/a/b.gguf,as=/c/d.gguf,window=9,plain")
    assert (it.name, it.path, it.form) == (
        "b,d.gguf,window=9,plain",
        Path("/a/b.gguf"),
        Path("/c/d.gguf"),
    )
    assert (it.window, it.is_plain, it.is_whole) == (9, True, False)
    with pytest.raises(ValueError, match="no changes \\['trim'\\]"):
        Variant.parsed("b.gguf,trim")


def test_questions_are_taken_in_turns() -> None:
    questions = [Question(str(n), category, ("?",)) for n, category in enumerate("aaabbc")]
    taken = measure_first_guess.chosen(questions, 2)
    assert [question.category for question in taken] == ["a", "b", "c", "a", "b"]
    assert [question.id for question in taken] == ["0", "3", "5", "1", "4"]
