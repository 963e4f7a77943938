"""`edgespec bench` on tiny models: figures, files and refusals."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from cli_support import Cli, Ended, assert_refused
from fake_peer import WHOLE, FakePeer, fake_peer
from tiny_models import TinySpec, write_tiny_model

from edgespec import errors
from edgespec.bench.records import Report, read_report
from edgespec.cache.database import open_database
from edgespec.types import PLAIN, PRODUCT

USAGE = errors.UsageError.exit_code
QUESTIONS = (
    ("w1", "writing", ["Write about the mill."]),
    ("m1", "maths", ["Count to nine."]),
    ("w2", "writing", ["Write about the bridge.", "Now shorter."]),
    ("m2", "maths", ["Count to three.", "And back.", "And again."]),
    ("w3", "writing", ["Write a letter."]),
)


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


def measured(ended: Ended, out: Path) -> Report:
    assert ended.returncode == 0, ended.stderr
    return read_report(out)


@pytest.fixture(scope="module")
def whole(cli: Cli, suite: Path) -> tuple[Ended, Report]:
    """A run over the whole suite, and its file."""
    out = suite.with_name("out.json")
    ended = bench(cli, suite, "--json", out)
    return ended, measured(ended, out)


@pytest.fixture(scope="module")
def report(whole: tuple[Ended, Report]) -> Report:
    return whole[1]


def test_the_file_tells_what_was_measured_where(cli: Cli, report: Report) -> None:
    assert report.is_complete
    target, asked = report.target, report.asked
    assert (target.name, target.drafter) == ("quick", "context+grammar")
    assert (target.exactness, target.settings["threads"]) == ("identical", 1)
    assert len(target.sha256) == 64
    assert (asked.max_tokens, asked.temperature, asked.warm) == (64, 0.0, None)
    assert report.machine.read_bandwidth > 0 and report.machine.num_threads == 1
    assert [way.name for way in report.ways] == [PLAIN, PRODUCT]
    assert [each.after_questions for each in report.drift] == [0, 5]
    assert set(report.pass_ms) >= {1, 2, 8}


def test_answers_are_the_same_and_really_drafted(report: Report) -> None:
    assert all(run.differs_at is None for run in report.runs)
    fast = report.of(PRODUCT).values()
    assert sum(run.by_source["context"].accepted for run in fast) > 0
    assert sum(run.num_tokens for run in fast) > sum(run.target_passes for run in fast)
    for run in report.runs:
        parts = run.split.model_dump()
        assert sum(parts.values()) == pytest.approx(run.decode_ms, abs=0.1)
        assert min(parts.values()) >= 0


def test_every_turn_counts(report: Report) -> None:
    runs = report.of(PLAIN)
    # The quick model does not end by itself.
    tokens = {"w1": 64, "m1": 64, "w2": 128, "m2": 192, "w3": 64}
    assert {name: run.num_tokens for name, run in runs.items()} == tokens
    assert runs["m2"].num_prompt_tokens > runs["w2"].num_prompt_tokens


def test_the_table_and_the_progress(whole: tuple[Ended, Report]) -> None:
    ended, _ = whole
    first, *rows = ended.stdout.splitlines()
    assert first == "quick, drafter context+grammar, promise: identical"
    names = [row.split()[0] for row in rows if row.strip()]
    assert names[1:5] == [PLAIN, PRODUCT, "writing", "maths"]
    assert "Same bytes as plain decoding in all 5 answers." in rows
    progress = [line for line in ended.stderr.splitlines() if line.startswith("[")]
    assert len(progress) == 5
    assert progress[0].startswith("[1/5] writing w1: edgespec ")
    assert all(line.endswith("same bytes") for line in progress)


def test_what_is_written_can_be_compared(cli: Cli, report: Report, suite: Path) -> None:
    out = suite.with_name("out.json")
    assert read_report(out) == report
    ended = cli.run("bench", "compare", out, out)
    assert ended.returncode == 0, ended.stderr
    assert "5 questions" in ended.stdout and PRODUCT in ended.stdout
    other = cli.run("bench", "compare", out, suite)
    assert_refused(other, USAGE, f"{suite} is no report")


def test_ways_categories_and_limit(cli: Cli, suite: Path, tmp_path: Path) -> None:
    out, small = tmp_path / "out.json", tmp_path / "small.gguf"
    write_tiny_model(small, TinySpec(num_layers=1, width=64, ffn_width=128, repetitive=True))
    options = ("--categories", " writing ,", "--limit", "2", "--temperature", "0.8", "--seed", "5")
    ways = ("--without", "context,database", "--baseline", "lookup", "--form", f"small={small}")
    ended = bench(cli, suite, *options, *ways, "--json", out)
    report = measured(ended, out)
    names = [PLAIN, PRODUCT, "without-context", "lookup", "small"]
    assert [way.name for way in report.ways] == names
    assert all(list(report.of(name)) == ["w1", "w2"] for name in names)
    assert all(run.differs_at is None for run in report.runs)
    assert (report.asked.temperature, report.asked.seed) == (0.8, 5)
    assert report.left_out == ("without-database: there is no database drafter",)
    assert "Left out: without-database: there is no database drafter" in ended.stdout
    only = bench(cli, suite, "--limit", "1", "--ways", "fixed-2,hierarchy", "--json", out)
    assert [way.name for way in measured(only, out).ways] == [PLAIN, "hierarchy"]


def test_without_a_drafter_there_is_nothing_to_accept(
    cli: Cli, suite: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    report = measured(bench(cli, suite, "--drafter", "none", "--limit", "1", "--json", out), out)
    assert all(run.num_tokens == run.target_passes for run in report.runs)


def test_a_file_that_cannot_be_written_is_told_before_anything_is_measured(
    cli: Cli, suite: Path, tmp_path: Path
) -> None:
    out = tmp_path / "missing" / "out.json"
    ended = bench(cli, suite, "--limit", "1", "--json", out)
    problem = f"edgespec: cannot write {out}: No such file or directory"
    assert_refused(ended, errors.StorageError.exit_code, problem)


def test_what_a_kill_left_is_gone_on_with(cli: Cli, suite: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    command = ("bench", *cli.on_quick, "--suite", suite, "--json", out)
    with cli.started(*command, "--max-tokens", "500", environment={"TERM": "dumb"}) as running:
        running.wait_for("[2/5]", "stderr")
        running.send(signal.SIGKILL)
        running.end()
    killed = read_report(out)
    assert 2 <= len(killed.of(PLAIN)) < 5
    assert not killed.is_complete
    other = cli.run(*command, "--max-tokens", "9", "--resume")
    assert_refused(other, USAGE, "measured with other questions or sampling", "--resume")
    ended = cli.run(*command, "--max-tokens", "500", "--resume")
    report = measured(ended, out)
    assert report.runs[: len(killed.runs)] == killed.runs
    assert list(report.of(PRODUCT)) == [name for name, _, _ in QUESTIONS]
    assert report.is_complete


def test_questions_that_do_not_fit_are_left_out_and_told(cli: Cli, tmp_path: Path) -> None:
    suite = tmp_path / "suite.jsonl"
    texts = ("word " * 500, "short")
    questions = ({"question_id": n, "category": "a", "turns": [t]} for n, t in enumerate(texts))
    suite.write_text("\n".join(map(json.dumps, questions)))
    ended = bench(cli, suite, "--context", "256")
    assert ended.returncode == 0
    assert "Left out: 0 does not fit the context" in ended.stdout
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
    pair = {"pair_id": "q", "category": "a", "first": ["a"]}
    pairs = [json.dumps({**pair, "second": [text]}) for text in ("b", "c")]
    path.write_text("\n".join(pairs))
    ended = bench(cli, path, "--warm", "rewritten")
    assert_refused(ended, USAGE, "two questions are called q")


def test_options_that_make_no_sense(cli: Cli, suite: Path) -> None:
    refused = {
        ("--categories", "maths,poetry"): ("no category poetry", "maths, writing"),
        ("--limit", "0"): ("--limit is 0",),
        ("--max-tokens", "1"): ("--max-tokens is 1", "at least 2"),
        ("--temperature", "-1"): ("temperature is -1.0",),
        ("--others", "mixed"): ("--others",),
        ("--without", "budget,wings"): ("no wings", "context, database"),
        ("--baseline", "fixed-3"): ("no fixed-3", "fixed-2"),
        ("--form", "plain=x.gguf"): ("--form plain=x.gguf", "a new name"),
        ("--resume",): ("--resume goes on with a file", "--json"),
        ("--what-if", "abacus"): ("no curve is named abacus", "metal"),
        ("--peer", "lookup=http://127.0.0.1:9", "--baseline", "lookup"): ("two ways", "lookup"),
    }
    for options, words in refused.items():
        assert_refused(bench(cli, suite, *options), USAGE, *words)


def test_our_own_prompts_are_the_default(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    options = ("--limit", "1", "--max-tokens", "4", "--json", out)
    report = measured(cli.run("bench", *cli.on_quick, *options), out)
    categories = [run.category for run in report.of(PLAIN).values()]
    assert len(categories) == len(set(categories)) > 1


def test_a_model_that_drafts_is_weighed_before_it_is_measured(
    cli: Cli, suite: Path, tmp_path: Path
) -> None:
    home = cli.remembered_in(tmp_path / "home").data
    spec = TinySpec(num_layers=1, width=64, ffn_width=128, repetitive=True)
    small = write_tiny_model(tmp_path / "small.gguf", spec)
    options = ("--drafter", small, "--suite", suite, "--limit", "1", "--max-tokens", "4")
    ended = cli.run("bench", *cli.on_quick, *options, home=home)
    assert ended.returncode == 0, ended.stderr
    with open_database(home / "edgespec.db") as database:
        query = "SELECT COUNT(*) FROM facts WHERE kind = 'trim'"
        assert database.connection.execute(query).fetchone() != (0,)


def test_a_page_and_a_prediction(cli: Cli, suite: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    options = ("--limit", "1", "--html", page, "--what-if", "metal-7b-q8_0")
    ended = bench(cli, suite, *options)
    assert ended.returncode == 0, ended.stderr
    assert "A prediction" in ended.stdout
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>") and "<svg" in text


def test_another_program_is_asked_in_turns_and_left_out_when_it_fails(
    cli: Cli, suite: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    with fake_peer(FakePeer(WHOLE)) as peer:
        gone = ("--peer", "gone=http://127.0.0.1:9", "--peer", f"other={peer.url}")
        ended = bench(cli, suite, "--limit", "1", *gone, "--json", out)
        report = measured(ended, out)
    assert [way.name for way in report.ways] == [PLAIN, PRODUCT, "other"]
    assert report.of("other")["w1"].text == "Hello."
    [line] = [line for line in report.left_out if "gone" in line]
    assert f"Left out: {line}"[:40] in ended.stdout


def test_a_full_disk_under_the_table_keeps_the_file(cli: Cli, suite: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    options = ("--suite", suite, "--limit", "1", "--max-tokens", "4", "--json", out)
    ended = cli.redirected(">/dev/full", "bench", *cli.on_quick, *options)
    assert ended.returncode == errors.StorageError.exit_code
    assert "cannot write the output" in ended.stderr.splitlines()[-1]
    assert read_report(out).is_complete


# Warm runs


def warm(cli: Cli, kind: str, *options: str | Path) -> tuple[Ended, Report]:
    out = cli.folder / f"warm-{kind}.json"
    command = ("bench", *cli.on_quick, "--warm", kind, "--max-tokens", "32", "--json", out)
    ended = cli.run(*command, *options)
    return ended, measured(ended, out)


RANDOM = ("--temperature", "1.5", "--top-k", "0", "--top-p", "1", "--min-p", "0")


def test_the_same_prompt_again_is_answered_from_memory(cli: Cli, suite: Path) -> None:
    before = cli.run("db", "export").stdout
    ended, report = warm(cli, "again", "--suite", suite, "--limit", "1", *RANDOM)
    assert (report.asked.warm, report.asked.num_earlier) == ("again", 2)
    assert report.target.drafter == "context+database+grammar"
    assert all(run.differs_at is None for run in report.runs)
    for run in report.of(PRODUCT).values():
        assert run.num_tokens > 3 * run.target_passes
    assert "learning 2 of 2: maths m1" in ended.stderr
    assert cli.run("db", "export").stdout == before, "what was learned is dropped"


def test_pairs_of_our_own_are_there(cli: Cli) -> None:
    ended, report = warm(cli, "rewritten", "--categories", "letter", "--limit", "1")
    assert report.asked.num_earlier == 1
    assert list(report.of(PLAIN)) == ["landlord"]
    assert "learning 1 of 1: letter landlord first" in ended.stderr


def test_unseen_prompts_are_compared_with_the_same_drafters_without_a_database(
    cli: Cli, suite: Path
) -> None:
    options = ("--suite", suite, "--others", suite, "--categories", "maths", "--limit", "1")
    _, report = warm(cli, "unseen", *options)
    assert report.asked.num_earlier == 5
    assert [way.name for way in report.ways] == [PLAIN, PRODUCT, "without-database"]
    without = report.of("without-database")["m1"]
    assert not any(source.startswith("database") for source in without.by_source)


def test_a_week_is_measured_day_by_day_and_learned_from(cli: Cli, tmp_path: Path) -> None:
    days = tmp_path / "days.jsonl"
    lines = [
        {"question_id": f"{day}-1", "day": day, "turns": ["Write of the mill."]} for day in (1, 2)
    ]
    days.write_text("\n".join(map(json.dumps, lines)))
    ended, report = warm(cli, "week", "--suite", days, *RANDOM)
    first, second = report.of(PRODUCT).values()
    assert (first.question, second.question) == ("1-1", "2-1")
    assert "database" not in first.by_source
    assert second.by_source["database"].accepted > 20
    assert "learning 1 of 1: day 1 1-1" in ended.stderr


def test_schemas_and_lengths_of_questions_count_and_answers_are_scored(
    cli: Cli, suite: Path, tmp_path: Path
) -> None:
    path, out = tmp_path / "suite.jsonl", tmp_path / "out.json"
    question = {"question_id": "q", "category": "a", "turns": ["Yes?"], "max_tokens": 20}
    path.write_text(json.dumps({**question, "schema": {"type": "boolean"}}))
    report = measured(bench(cli, path, "--temperature", "0.8", "--json", out), out)
    for run in report.runs:
        assert run.text in ("true", "false")
        assert (run.scores, run.differs_at) == ({"valid": 1.0}, None)
