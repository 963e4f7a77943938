"""Figures of a report against sums by hand and Spec-Bench's script, and what the terminal shows."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from bench_reports import CATEGORIES, DRAFTER, PASS_MS, WAYS, bench_report, curve_ms
from rich.console import Console, RenderableType

from edgespec.bench.caveats import caveats, sameness
from edgespec.bench.compare import compare, compare_lines, differences
from edgespec.bench.figures import Place, Summaries, categories, interpolated, others, summary
from edgespec.bench.records import Counts, Drift, Passes, Report, Run, Split, read_report
from edgespec.bench.replay import load_curve
from edgespec.bench.table import print_table, print_what_if
from edgespec.errors import UsageError

REPORT = bench_report()
GOLDEN = Path(__file__).parent / "goldens" / "bench_report.schema.json"


def shown(what: RenderableType, width: int = 80) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(what)
    return out.getvalue()


def run(question: str, way: str, **values: object) -> Run:
    told = {
        "category": "a",
        "place": 0,
        "num_turns": 1,
        "num_prompt_tokens": 5,
        "prompt_ms": 0.0,
        "first_token_ms": 100.0,
        "request_ms": 0.0,
        "decode_ms": 0.0,
        "num_tokens": 1,
    }
    return Run.model_validate({"question": question, "way": way, **told, **values})


def worked() -> Report:
    """Two questions: 10 and 30 tokens/s plain, 20 and 30 with drafts."""
    runs = (
        run("1", "plain", num_tokens=101, decode_ms=10_000, request_ms=10_100, target_passes=101),
        run(
            "1",
            "edgespec",
            num_tokens=101,
            decode_ms=5_000,
            request_ms=5_050,
            first_token_ms=50.0,
            target_passes=51,
            by_source={
                DRAFTER: Counts(proposed=40, accepted=30),
                "database": Counts(proposed=20, accepted=20),
            },
            split=Split(target=4_000, drafters=600, bridge=100, rest=300),
            passes=Passes(
                rows=(4, 1, 3),
                kept=(2, 1, 3),
                context=(5, 7, 8),
                took=(66.0, 53.0, 63.0),
                drafting=(6.0, 0.0, 0.0),
                plain=(53.0, 53.0, 53.0),
                estimates=((0.5, 0.5, 0.5), (), (0.9, 0.9)),
            ),
            joules=202.0,
            scores={"headings": 0.5},
            differs_at=17,
        ),
        run("2", "plain", num_tokens=31, decode_ms=1_000, request_ms=1_100, target_passes=31),
        run(
            "2",
            "edgespec",
            category="b",
            num_tokens=31,
            decode_ms=1_000,
            request_ms=1_100,
            target_passes=31,
            by_source={DRAFTER: Counts(proposed=20, accepted=0)},
            split=Split(target=1_000),
            passes=Passes(
                rows=(1,), kept=(1,), context=(5,), took=(53.0,), drafting=(0.0,), plain=(53.0,)
            ),
        ),
        run("3", "plain", target_passes=1),
        run("3", "edgespec", target_passes=1),
    )
    return bench_report(ways=WAYS[:2], num_each=0).model_copy(update={"runs": runs})


def test_a_worked_example() -> None:
    """The ratio of the means is 5 : 4, the median of the ratios 1.5; one token has no speed."""
    figures = summary(worked(), "edgespec")
    assert (figures.num_questions, figures.decoding.num) == (3, 2)
    assert (figures.plain_tokens_per_second, figures.tokens_per_second) == (20.0, 25.0)
    assert figures.speedup == 1.25
    assert figures.decoding.median == 1.5
    assert figures.decoding.interval is None
    assert figures.request.median == 1.5
    assert figures.first_token_ms == 100.0
    assert figures.block_efficiency == 133 / 83
    assert figures.acceptance_rate == 50 / 80
    assert figures.by_source["database"] == Counts(proposed=20, accepted=20)
    assert figures.by_place == (Place(2, 2), Place(2, 1), Place(1, 0))
    c_gamma = 60 * WAYS[1].guess_bytes / (83 * REPORT.target.pass_bytes)
    assert figures.mbsu == pytest.approx(133 / 83 / (c_gamma + 1))
    assert figures.roofline_share == pytest.approx(
        REPORT.target.pass_bytes * 130 / 11.0 / REPORT.machine.read_bandwidth
    )
    assert figures.split == pytest.approx(
        {
            "target": 5_000 / 130,
            "drafters": 600 / 130,
            "bridge": 100 / 130,
            "lookups": 0.0,
            "planner": 0.0,
            "sampler": 0.0,
            "text": 0.0,
            "rest": 300 / 130,
        }
    )
    assert (figures.joules, summary(worked(), "plain").joules) == (2.0, None)
    assert figures.scores == {"headings": 0.5}
    assert (figures.num_compared, figures.differing) == (3, (("1", 17),))


def test_hindsight_refunds_rows_and_no_guesses() -> None:
    """A pass over four rows kept two: it gets 66 - 58 ms back. That over three kept all."""
    saved = 66.0 * (1 - curve_ms(2) / curve_ms(4))
    speeds = 100 / (5_000 - saved) * 1e3 + 30.0
    assert summary(worked(), "edgespec").hindsight == pytest.approx(speeds / 2 / 20.0)
    without_curve = worked().model_copy(update={"pass_ms": {}})
    assert summary(without_curve, "edgespec").hindsight is None


@pytest.mark.parametrize("way", [way.name for way in WAYS[1:]])
def test_speeds_are_those_of_spec_bench(way: str) -> None:
    """Its `speed.py` takes new tokens over wall time for each question and divides the means."""
    fast, base = REPORT.of(way), REPORT.of("plain")

    def mean(runs: dict[str, Run]) -> float:
        speeds = [(run.num_tokens - 1) / (run.decode_ms / 1e3) for run in runs.values()]
        return sum(speeds) / len(speeds)

    assert summary(REPORT, way).speedup == pytest.approx(mean(fast) / mean(base))


def test_categories_divide_the_questions() -> None:
    assert categories(REPORT) == list(CATEGORIES)
    parts = [summary(REPORT, "edgespec", [name]) for name in CATEGORIES]
    whole = summary(REPORT, "edgespec")
    assert sum(part.num_questions for part in parts) == whole.num_questions
    assert summary(REPORT, "edgespec", CATEGORIES) == whole
    proposed = sum(each.by_source[DRAFTER].proposed for each in parts)
    assert proposed == whole.by_source[DRAFTER].proposed


def test_a_peer_tells_times_and_nothing_else() -> None:
    figures = summary(REPORT, "llama-server")
    assert figures.speedup == pytest.approx(0.6, abs=0.05)
    assert figures.request.interval is not None
    assert (figures.block_efficiency, figures.mbsu, figures.hindsight) == (None, None, None)
    assert (figures.acceptance_rate, figures.split, figures.by_place) == (None, {}, ())
    assert figures.num_compared == 0


def test_a_report_of_nothing_has_figures_of_nothing() -> None:
    empty = bench_report(num_each=0)
    figures = summary(empty, "edgespec")
    assert (figures.num_questions, figures.speedup, figures.mbsu) == (0, 0.0, None)
    assert others(empty) == []
    out = io.StringIO()
    print_table(empty, Console(file=out, width=80))
    assert "plain" in out.getvalue()


def test_no_time_is_taken_from_beyond_a_curve() -> None:
    assert interpolated(PASS_MS, 5) == 73.0
    assert interpolated(PASS_MS, 17) is None
    assert interpolated({}, 1) is None


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_has_every_way_and_category_in_the_width_there_is(width: int) -> None:
    out = io.StringIO()
    print_table(REPORT, Console(file=out, width=width))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    for way in WAYS:
        assert sum(line.startswith(way.name) for line in lines) == 1
    assert sum(line.startswith("  code") for line in lines) == len(WAYS) - 1
    whole = summary(REPORT, "edgespec")
    [line] = [line for line in lines if line.startswith("edgespec")]
    assert f"{whole.speedup:.2f}x" in line and f"{whole.decoding.median:.2f}x" in line
    assert "Same bytes as plain decoding in all 180 answers." in out.getvalue()
    assert "Left out: chat-99" in out.getvalue()
    assert "Score headings: plain 0.90, edgespec 0.90" in " ".join(out.getvalue().split())
    assert "reads weights at 59% of what memory gives" in out.getvalue()
    assert (f"{whole.mbsu:.2f}x" in line) is (width == 120)


def test_a_what_if_says_that_it_is_a_prediction_and_whose_curve_it_is() -> None:
    out = io.StringIO()
    print_what_if(REPORT, load_curve("metal-7b-q8_0"), Console(file=out, width=80))
    text = " ".join(out.getvalue().split())
    assert "A prediction" in text and "cannot be seen" in text
    assert "10581" in text and "Metal" in text
    assert max(map(len, out.getvalue().splitlines())) <= 80


def test_what_spoils_figures_is_said() -> None:
    assert sameness(Summaries(worked())) == [
        "edgespec: 1 of 3 answers have other bytes than plain decoding; 1 differs from character "
        "17 on."
    ]
    drift = (Drift(after_questions=0, token_ms=50.0), Drift(after_questions=9, token_ms=60.0))
    busy = tuple(run.model_copy(update={"load": 3.5}) for run in REPORT.runs)
    target = REPORT.target.model_copy(update={"settings": {"provisional": True, "max_rows": 4}})
    told = " ".join(
        caveats(
            bench_report(
                target=target, drift=drift, runs=busy, is_complete=False, left_out=("a peer died",)
            )
        )
    )
    for said in (
        "Cut short",
        "Only 4 rows",
        "50.0 to 60.0 ms",
        "pace changed",
        "up to 3.5",
        "a peer died",
    ):
        assert said in told
    calm = " ".join(caveats(REPORT))
    assert "kept its pace" in calm and "Something else ran" not in calm


def test_two_runs_of_the_same_agree_and_the_machines_speed_means_nothing() -> None:
    again = bench_report(seed=1, speed=1.3)
    assert all(each.agree for each in compare(REPORT, again))
    assert all(each.ratio.median == 1.0 for each in compare(REPORT, REPORT))
    [pace] = differences(REPORT, again)
    assert "Plain decoding was 1.30 times as fast in B" in pace
    assert differences(REPORT, bench_report(seed=1, speed=1.03)) == []
    text = shown(compare_lines(REPORT, again))
    assert "agree within their intervals" in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_way_that_became_slower_is_found_and_other_conditions_are_told() -> None:
    slower = tuple(
        run.model_copy(update={"decode_ms": 1.25 * run.decode_ms}) if run.way == "edgespec" else run
        for run in REPORT.runs
        if run.question != "chat-0"
    )
    target = REPORT.target.model_copy(update={"sha256": "0" * 64})
    machine = REPORT.machine.model_copy(update={"processor": "Another"})
    asked = REPORT.asked.model_copy(update={"temperature": 0.8, "suite": "code"})
    other = REPORT.model_copy(
        update={"runs": slower, "target": target, "machine": machine, "asked": asked}
    )
    [found, *rest] = compare(REPORT, other)
    assert (found.way, found.ratio.num) == ("edgespec", 35)
    assert found.ratio.median == pytest.approx(0.8)
    assert found.agree is False
    assert found.verdict == "B is slower by 20.0% to 20.0%"
    assert all(each.agree for each in rest)
    warned = " ".join(differences(REPORT, other))
    for said in ("machine", "model", "suite", "sampling", "1 questions are only in one"):
        assert said in warned
    assert "No way was asked" in shown(compare_lines(REPORT, bench_report(num_each=0)))
    few = bench_report(num_each=1)
    assert compare(few, few)[0].verdict == "under 6 questions, which is too few to tell"


def without_words(schema: object) -> object:
    """A JSON schema without its descriptions."""
    if isinstance(schema, dict):
        return {
            name: without_words(value)
            for name, value in schema.items()
            if not (name == "description" and isinstance(value, str))
        }
    return [without_words(each) for each in schema] if isinstance(schema, list) else schema


def test_the_form_of_reports_is_pinned(pytestconfig: pytest.Config) -> None:
    """Other programs read it: change SCHEMA when a field changes its meaning or goes."""
    text = json.dumps(without_words(Report.model_json_schema()), indent=2) + "\n"
    if pytestconfig.getoption("update_snapshots"):
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")


def test_a_report_is_read_as_it_was_written_and_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(REPORT.model_dump_json(by_alias=True), encoding="utf-8")
    assert read_report(path) == REPORT
    path.write_text('{"schema": 1}', encoding="utf-8")
    with pytest.raises(UsageError, match="no report of this version"):
        read_report(path)
