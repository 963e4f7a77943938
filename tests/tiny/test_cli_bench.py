"""`edgespec bench` on tiny models: figures, files and refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_support import Cli, Ended, assert_refused

from edgespec import errors

USAGE = errors.UsageError.exit_code
QUESTIONS = (
    ("w1", "writing", ["Write about the mill."]),
    ("m1", "maths", ["Count to nine."]),
    ("w2", "writing", ["Write about the bridge.", "Now shorter."]),
    ("m2", "maths", ["Count to three.", "And back.", "And again."]),
    ("w3", "writing", ["Write a letter."]),
)
FIGURES = {
    "speedup": float,
    "plain_tokens_per_second": float,
    "tokens_per_second": float,
    "block_efficiency": float,
    "acceptance_rate": float,
    "identical": bool,
    "questions": int,
}


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    return Cli.of(tmp_path_factory)


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "suite.jsonl"
    names = ("question_id", "category", "turns")
    lines = [json.dumps(dict(zip(names, values, strict=True))) for values in QUESTIONS]
    path.write_text("\n".join(lines) + "\n\n")
    return path


def bench(cli: Cli, suite: Path, *options: str | Path) -> Ended:
    return cli.run("bench", *cli.on_quick, "--suite", suite, "--max-tokens", "64", *options)


@pytest.fixture(scope="module")
def whole(cli: Cli, suite: Path) -> tuple[Ended, dict[str, Any]]:
    """A run over the whole suite, and its file."""
    out = suite.with_name("out.json")
    ended = bench(cli, suite, "--json", out)
    assert ended.returncode == 0, ended.stderr
    report = json.loads(out.read_text())
    assert isinstance(report, dict)
    return ended, report


@pytest.fixture(scope="module")
def report(whole: tuple[Ended, dict[str, Any]]) -> dict[str, Any]:
    return whole[1]


def test_the_file_has_the_promised_fields(cli: Cli, report: dict[str, Any]) -> None:
    assert list(report["categories"]) == ["writing", "maths"]
    for figures in (report["overall"], *report["categories"].values()):
        assert set(figures) == set(FIGURES)
        assert all(type(figures[name]) is kind for name, kind in FIGURES.items())
    assert report["complete"] is True
    assert report["model"] == "quick"
    assert report["drafter"] == "context+grammar"
    assert report["exactness"] == "identical"
    assert report["settings"]["threads"] == 1
    assert report["sampling"]["temperature"] == 0.0


def test_answers_are_the_same_both_ways_and_really_drafted(report: dict[str, Any]) -> None:
    assert report["overall"]["identical"] is True
    assert all(pair["identical"] for pair in report["pairs"])
    assert report["overall"]["acceptance_rate"] > 0
    assert report["overall"]["block_efficiency"] > 1
    assert sum(pair["proposed"] for pair in report["pairs"]) > 0


def test_every_turn_counts(report: dict[str, Any]) -> None:
    tokens = {pair["question_id"]: pair["tokens"] for pair in report["pairs"]}
    # The quick model does not end by itself; prefill gives the first token of each answer.
    assert tokens == {"w1": 63, "m1": 63, "w2": 126, "m2": 189, "w3": 63}
    prompts = {pair["question_id"]: pair["prompt_tokens"] for pair in report["pairs"]}
    assert prompts["m2"] > prompts["w2"] > prompts["w1"]


def test_the_table_and_the_progress(whole: tuple[Ended, dict[str, Any]]) -> None:
    ended, report = whole
    first, headings, *rows = ended.stdout.splitlines()
    assert first == "quick, drafter context+grammar, promise: identical"
    for heading in ("category", "questions", "plain t/s", "speed-up", "same"):
        assert heading in headings
    assert [row.split()[:2] for row in rows] == [["writing", "3"], ["maths", "2"], ["overall", "5"]]
    shown = float(rows[-1].split()[4])  # three digits of what the report rounds to four
    assert shown == pytest.approx(report["overall"]["speedup"], abs=0.00056)
    assert all(row.split()[-1] == "yes" for row in rows)
    progress = ended.stderr.splitlines()
    assert len(progress) == 5
    assert progress[0].startswith("[1/5] writing w1: ")
    assert all(line.endswith("same bytes") for line in progress)


def test_categories_and_limit(cli: Cli, suite: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    options = ("--categories", " writing ,", "--limit", "2", "--temperature", "0.8", "--seed", "5")
    ended = bench(cli, suite, *options, "--json", out)
    assert ended.returncode == 0, ended.stderr
    report = json.loads(out.read_text())
    assert [pair["question_id"] for pair in report["pairs"]] == ["w1", "w2"]
    assert list(report["categories"]) == ["writing"]
    assert report["overall"]["identical"] is True
    assert (report["sampling"]["temperature"], report["sampling"]["seed"]) == (0.8, 5)


def test_without_a_drafter_there_is_nothing_to_accept(
    cli: Cli, suite: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    assert bench(cli, suite, "--drafter", "none", "--limit", "1", "--json", out).returncode == 0
    overall = json.loads(out.read_text())["overall"]
    assert (overall["block_efficiency"], overall["acceptance_rate"]) == (1.0, 0.0)


def test_a_file_that_cannot_be_written_costs_the_file_only(
    cli: Cli, suite: Path, tmp_path: Path
) -> None:
    out = tmp_path / "missing" / "out.json"
    ended = bench(cli, suite, "--limit", "1", "--json", out)
    assert ended.returncode == errors.StorageError.exit_code
    assert "overall" in ended.stdout
    last = ended.stderr.splitlines()[-1]
    assert last.startswith(f"edgespec: cannot write {out}: No such file or directory")
    assert "Traceback" not in ended.stderr


def test_questions_that_do_not_fit_are_left_out_and_told(cli: Cli, tmp_path: Path) -> None:
    suite = tmp_path / "suite.jsonl"
    texts = ("word " * 500, "short")
    questions = ({"question_id": 1, "category": "a", "turns": [text]} for text in texts)
    suite.write_text("\n".join(map(json.dumps, questions)))
    ended = bench(cli, suite, "--context", "256")
    assert ended.returncode == 0
    assert ended.stdout.splitlines()[-1].split()[:2] == ["overall", "1"]
    assert "1 question does not fit the context: left out" in ended.stderr
    suite.write_text(suite.read_text().splitlines()[0])
    assert_refused(
        bench(cli, suite, "--context", "256"),
        errors.ContextOverflowError.exit_code,
        "no question fits",
        "--context",
    )


def test_a_suite_that_is_none(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "suite.jsonl"
    assert_refused(bench(cli, path), USAGE, str(path), "check the path")
    path.write_bytes(b"not json")
    assert_refused(bench(cli, path), USAGE, str(path), "line 1", "is not a question")


def test_options_that_make_no_sense(cli: Cli, suite: Path) -> None:
    refused = {
        ("--categories", "maths,poetry"): ("no category poetry", "maths, writing"),
        ("--limit", "0"): ("--limit is 0",),
        ("--max-tokens", "1"): ("--max-tokens is 1", "at least 2"),
        ("--temperature", "-1"): ("temperature is -1.0",),
        ("--others", "mixed"): ("--others",),
    }
    for options, words in refused.items():
        assert_refused(bench(cli, suite, *options), USAGE, *words)


def test_our_own_prompts_are_the_default(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    options = ("--limit", "1", "--max-tokens", "4", "--json", out)
    ended = cli.run("bench", *cli.on_quick, *options)
    assert ended.returncode == 0, ended.stderr
    report = json.loads(out.read_text())
    assert len(report["categories"]) > 1
    assert all(figures["questions"] == 1 for figures in report["categories"].values())


def test_a_full_disk_under_the_table_keeps_the_file(cli: Cli, suite: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    options = ("--suite", suite, "--limit", "1", "--max-tokens", "4", "--json", out)
    ended = cli.redirected(">/dev/full", "bench", *cli.on_quick, *options)
    assert ended.returncode == errors.StorageError.exit_code
    assert "cannot write the output" in ended.stderr.splitlines()[-1]
    assert json.loads(out.read_text())["complete"] is True


# Warm runs


def warm(cli: Cli, kind: str, *options: str | Path) -> tuple[Ended, dict[str, Any]]:
    out = cli.folder / f"warm-{kind}.json"
    command = ("bench", *cli.on_quick, "--warm", kind, "--max-tokens", "32", "--json", out)
    ended = cli.run(*command, *options)
    assert ended.returncode == 0, ended.stderr
    report = json.loads(out.read_text())
    assert isinstance(report, dict)
    return ended, report


RANDOM = ("--temperature", "1.5", "--top-k", "0", "--top-p", "1", "--min-p", "0")


def test_the_same_prompt_again_is_answered_from_memory(cli: Cli, suite: Path) -> None:
    ended, report = warm(cli, "again", "--suite", suite, "--limit", "1", *RANDOM)
    assert (report["warm"], report["earlier_questions"]) == ("again", 2)
    assert report["drafter"] == "context+database+grammar"
    assert report["overall"]["identical"] is True
    assert report["overall"]["block_efficiency"] > 3
    assert "learning 2 of 2: maths m1" in ended.stderr
    assert "plain t/s" in ended.stdout


def test_pairs_of_our_own_are_there(cli: Cli) -> None:
    ended, report = warm(cli, "rewritten", "--categories", "letter", "--limit", "1")
    assert report["earlier_questions"] == 1
    assert [pair["question_id"] for pair in report["pairs"]] == ["landlord"]
    assert "learning 1 of 1: letter landlord first" in ended.stderr


def test_a_day_is_measured_with_a_memory_of_the_days_before(cli: Cli) -> None:
    ended, report = warm(cli, "week", "--categories", "day 2", "--limit", "1")
    assert (report["warm"], report["earlier_questions"]) == ("week", 1)
    assert [pair["question_id"] for pair in report["pairs"]] == ["day2-1"]
    assert "learning 1 of 1: day 1 day1-1" in ended.stderr


def test_unseen_prompts_are_compared_with_an_empty_memory(cli: Cli, suite: Path) -> None:
    options = ("--suite", suite, "--others", suite, "--categories", "maths", "--limit", "1")
    ended, report = warm(cli, "unseen", *options)
    assert report["earlier_questions"] == 5
    assert report["overall"]["questions"] == 1
    assert "empty t/s" in ended.stdout


def test_what_a_warm_run_learned_is_dropped(cli: Cli, suite: Path) -> None:
    before = cli.run("db", "export").stdout
    warm(cli, "again", "--suite", suite, "--limit", "1")
    assert cli.run("db", "export").stdout == before
